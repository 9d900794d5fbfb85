// The token: it is kept for this tab alone, and leaves the page in the Authorization header only.

const key = 'registry-token';
let listener = () => {};

export const session = {
  get token() { return sessionStorage.getItem(key) ?? ''; },
  set token(text) {
    if (text) sessionStorage.setItem(key, text);
    else sessionStorage.removeItem(key);
    listener();
  },
  set onchange(f) { listener = f; },
};
