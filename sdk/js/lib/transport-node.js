// Requests of Node. They go to the nodes directly, whatever proxy the environment names.

import http from 'node:http';
import https from 'node:https';

import { UnavailableError } from './errors.js';

/** maxAnswer bounds an answer that is read as a whole: nodes send 4 MiB as protobuf. */
const maxAnswer = 64 << 20;

/** NodeTransport makes requests to nodes over connections that it keeps. tls has options of node:tls, such as ca, cert and key. */
export class NodeTransport {
  #tls;
  #agent;

  constructor({ tls }) {
    this.#tls = tls;
    this.#agent = new (tls ? https : http).Agent({ keepAlive: true, keepAliveMsecs: 10_000, maxFreeSockets: 16 });
  }

  /**
   * request resolves with the head of an answer. sent is called once the request may have reached the node. A stream
   * has a connection of its own, and with unref does not keep the process running.
   */
  request(addr, { method, path, headers, body, signal, sent, stream = false, unref = false }) {
    return new Promise((resolve, reject) => {
      const [host, port] = splitAddr(addr), tls = this.#tls;
      const options = { host, port, method, path, headers, signal, agent: stream ? false : this.#agent, ...(tls === true ? {} : tls) };
      const req = (tls ? https : http).request(options);
      req.on('socket', (socket) => {
        if (unref) socket.unref();
        if (req.reusedSocket) sent();
        else socket.once(tls ? 'secureConnect' : 'connect', sent);
      });
      req.on('error', (cause) => reject(signal?.aborted ? signal.reason : failed(cause)));
      req.on('response', (answer) => resolve({
        status: answer.statusCode, header: (name) => answer.headers[name.toLowerCase()] ?? '',
        text: () => text(answer, signal), chunks: () => chunks(answer, signal),
      }));
      req.end(body);
    });
  }

  close() {
    this.#agent.destroy();
  }
}

function failed(cause) {
  // Some errors of several addresses of one name have no message of their own.
  return new UnavailableError(cause.message || cause.errors?.map((e) => e.message).join('; ') || cause.code, { cause });
}

/** splitAddr splits host:port; the host may be an IPv6 address in brackets. */
export function splitAddr(addr) {
  const at = addr.lastIndexOf(':');
  return [addr.slice(0, at).replace(/^\[(.*)\]$/, '$1'), Number(addr.slice(at + 1))];
}

async function* chunks(answer, signal) {
  try {
    yield* answer;
  } catch (cause) {
    throw signal?.aborted ? signal.reason : failed(cause);
  } finally {
    answer.destroy();
  }
}

async function text(answer, signal) {
  const parts = [];
  let size = 0;
  try {
    for await (const part of answer) {
      parts.push(part);
      if ((size += part.length) > maxAnswer) throw new Error(`the answer has more than ${maxAnswer} bytes`);
    }
  } catch (cause) {
    throw signal?.aborted ? signal.reason : failed(cause);
  }
  return Buffer.concat(parts).toString();
}
