// The worker that computes rings, as promises.

export class Rings {
  #worker; #waiting = new Map(); #id = 0; #building = false; #next = null;

  constructor() {
    let url = '/ui/worker.js';
    if (window.trustedTypes) url = trustedTypes.createPolicy('worker', { createScriptURL: () => '/ui/worker.js' }).createScriptURL(url);
    this.#worker = new Worker(url, { type: 'module' });
    this.#worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
  }

  // call runs an operation of the worker; operations run one after another.
  call(operation, args = {}) {
    const id = ++this.#id;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, operation, args });
    });
  }

  // build makes the ring of a group and calls done(error, picture). Of the groups that arrive while one is
  // built, only the newest is built: a large group that changes all the time does not pile up.
  build(group, done) {
    this.#next = { group, done };
    if (!this.#building) this.#buildNext();
  }

  async #buildNext() {
    this.#building = true;
    for (let job; (job = this.#next);) {
      this.#next = null;
      const members = [...job.group.members.values()].map(({ id, weight, state }) => ({ id, weight, state }));
      try {
        job.done(null, await this.call('build', { params: job.group.config, members }));
      } catch (e) {
        job.done(e, null);
      }
    }
    this.#building = false;
  }
}
