// The frame of the page: header, state, banner, and the view that the address names.

import { fill, setText } from './dom.js';
import { Cluster } from './cluster.js';
import { dark } from './colour.js';
import { clock, span } from './format.js';
import { GroupView } from './group.js';
import { Overview } from './overview.js';
import { Rings } from './rings.js';
import { session } from './session.js';
import { TokenDialog, rights, who } from './token.js';

const $ = (id) => document.getElementById(id);
const dialog = new TokenDialog();
document.body.append(dialog.element);

let rings = null; // the worker starts with the first group
let view = null;
let running = null; // aborts what the page keeps open
const cluster = new Cluster(draw);

function open() {
  const [, name] = /^#\/groups\/(.+)$/.exec(location.hash) ?? [];
  view = name ? new GroupView(safeDecode(name), cluster, rings ??= new Rings(), draw) : new Overview(cluster, draw);
  fill($('main'), view.element);
  document.title = name ? `${view.title} · registry` : 'registry';
  restart();
  window.scrollTo(0, 0);
}

function safeDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// restart begins anew what the page keeps open: at most one stream, and one call at a time beside it. A
// hidden tab keeps nothing open, because a browser has six connections to a node, for all tabs.
function restart() {
  running?.abort();
  running = null;
  if (document.hidden) return;
  running = new AbortController();
  start(running.signal);
  draw();
}

// start first asks who the token says this is: without the right one, nothing else is asked.
async function start(signal) {
  for (let started = false; !signal.aborted;) {
    try {
      const token = await who(signal);
      showWho(token);
      if (!started) cluster.run(signal);
      view.run(signal, token);
      return;
    } catch (e) {
      if (signal.aborted) return;
      cluster.fail(e);
      showWho(null);
      if (cluster.refused) return;
      if (!started) cluster.run(signal); // it shows the nodes, also at a node that has not caught up
      started = true;
      await new Promise((r) => { setTimeout(r, retry); });
    }
  }
}

const retry = 1000;

function showWho(token) {
  $('who').textContent = token ? token.name : '';
  $('who').title = token ? `This token may: ${rights(token)}.` : '';
  $('forget').hidden = !session.token;
  $('enter').hidden = !!session.token || !needsToken();
}

const needsToken = () => cluster.problem?.status === 401;

function draw() {
  if (!view) return;
  const { status, self } = cluster;
  setText($('cluster'), status ? status.cluster : '');
  setText($('node'), self ? `served by ${self}` : '');
  drawState();
  drawBanner();
  if (needsToken() && asked !== session.token) {
    const first = !session.token;
    asked = session.token;
    dialog.open(first ? '' : cluster.problem.message);
  }
  if (needsToken()) $('enter').hidden = false;
  view.draw();
}

let asked = null; // the token, if any, that the dialog was opened for

const states = { live: 'Live', connecting: 'Connecting', reconnecting: 'Reconnecting', refused: 'Not allowed' };

function drawState() {
  const [state] = view.state, gone = cluster.problem?.status === 0;
  const shown = gone ? 'reconnecting' : cluster.refused ? 'refused' : state;
  const past = view.timeline && view.timeline.place >= 0;
  $('state').className = `pill ${past ? 'past' : shown}`;
  setText($('state'), past ? 'Paused at a revision' : states[shown]);
}

function drawBanner() {
  const [level, text] = banner();
  $('banner').hidden = !text;
  $('banner').className = `banner ${level}`;
  setText($('banner'), text);
}

// banner says what is wrong with the node or the cluster, if anything is.
function banner() {
  const { problem, status, self, lag, node } = cluster;
  if (problem?.status === 0) return ['bad', `This node does not answer. ${cluster.heard ? `What you see is as of ${clock(cluster.heard)}. ` : ''}The page tries again by itself.`];
  if (problem?.status === 429) return ['bad', `${problem.message}. Enter the right token.`];
  if (problem?.status === 401) return ['warn', session.token ? `The token is refused: ${problem.message}.` : 'This cluster needs a token.'];
  if (problem) return ['bad', problem.message];
  if (node && !node.ready) return ['warn', `${self} has not caught up with its cluster yet: it shows the nodes, and groups as soon as it can.`];
  if (status && !status.leader) return ['bad', `The cluster has no leader. ${self || 'This node'} still answers reads, from its own state of ${span(lag)} ago; changes wait for a leader, and so do the ends of leases.`];
  if (cluster.leaderless) return ['bad', `${self} last heard from the leader, ${status.leader}, ${span(lag)} ago: what you see may be older than that of other nodes.`];
  return ['', ''];
}

session.onchange = () => {
  cluster.forget();
  asked = null;
  open();
};
$('forget').addEventListener('click', () => { session.token = ''; });
$('enter').addEventListener('click', () => dialog.open(''));
addEventListener('hashchange', () => {
  open();
  $('main').focus({ preventScroll: true });
});
document.addEventListener('visibilitychange', restart);
dark.addEventListener('change', () => view.recolour?.());
setInterval(draw, 1000);
open();
