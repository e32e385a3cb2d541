// Loaded before a client (`node --require`), which stays as it is: what the client sends to PiAPI goes to CLIENTS_BASE,
// a connection to anything that is not on loopback fails, and waits of a second or more become short.
"use strict";

const net = require("node:net");

const PROVIDER_HOSTS = new Set(["api.piapi.ai", "upload.theapi.app"]);
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|::1|\[::1\])$/;
const LONG_WAIT_MS = 1000;
const SHORT_WAIT_MS = 150;

function onLoopback(address) {
  const url = new URL(address);
  if (PROVIDER_HOSTS.has(url.hostname)) return new URL(url.pathname + url.search, process.env.CLIENTS_BASE);
  if (LOOPBACK.test(url.hostname)) return url;
  throw new Error(`a client may not call ${url.hostname}: only PiAPI's addresses and loopback`);
}

const realFetch = globalThis.fetch;
globalThis.fetch = (resource, options) =>
  realFetch(onLoopback(typeof resource === "string" || resource instanceof URL ? resource : resource.url), options);

const realConnect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function connect(...given) {
  const [first, second] = Array.isArray(given[0]) ? given[0] : given;
  const host = typeof first === "object" ? first.host : second;
  const isPath = typeof first === "object" ? first.path : typeof first === "string" && Number.isNaN(Number(first));
  if (!isPath && typeof host === "string" && !LOOPBACK.test(host)) {
    throw new Error(`a client may not connect to ${host}: only to loopback`);
  }
  return realConnect.apply(this, given);
};

const realSetTimeout = globalThis.setTimeout;
const shortened = (work, delay, ...rest) =>
  realSetTimeout(work, delay >= LONG_WAIT_MS ? SHORT_WAIT_MS : delay, ...rest);
globalThis.setTimeout = Object.assign(shortened, realSetTimeout);

module.exports = { onLoopback };
