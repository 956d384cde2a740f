'use strict';
// A primary that does what the test tells it on its standard input, a line of
// JSON each, and says on its standard output what happens to its workers.

const cluster = require('cluster');
const readline = require('readline');
const tools = require('./tools');

// forkGo forks a Go program: the path of the program is not among the settings
// of node's cluster, but it is read when fork is called.
function forkGo(program, env) {
  const node = process.execPath;
  process.execPath = program;
  try { return cluster.fork(env); } finally { process.execPath = node; }
}

const workers = {}; // all that ever were, by id
const replies = {}; // what waits for an answer of a Go worker
let asked = 0;

tools.extend({
  workers,
  fork(env) {
    const worker = forkGo(process.env.GO_PROGRAM, { CLUSTER_TEST_PROGRAM: 'guest', ...env });
    // What a worker cannot be told any more because it ends is no error.
    worker.on('error', (e) => {
      if (!['EPIPE', 'ECONNRESET', 'ERR_IPC_CHANNEL_CLOSED', 'ERR_IPC_DISCONNECTED'].includes(e.code)) throw e;
    });
    workers[worker.id] = worker;
    return worker;
  },
  // ask lets a Go worker do something and resolves to its answer.
  ask: (worker, what) => new Promise((resolve) => {
    replies[++asked] = resolve;
    worker.send({ ...what, cmd: 'do', id: asked });
  }),
});

cluster.on('fork', (w) => console.log('fork', w.id));
cluster.on('online', (w) => console.log('online', w.id, w.state));
cluster.on('listening', (w, address) => console.log('listening', w.id, JSON.stringify(address)));
cluster.on('disconnect', (w) => console.log('disconnect', w.id, w.exitedAfterDisconnect, w.isConnected()));
cluster.on('exit', (w, code, signal) => console.log('exit', w.id, code, signal, w.exitedAfterDisconnect, w.isDead()));
cluster.on('message', (w, message) => {
  if (message && message.re) {
    replies[message.re](message.value);
    return;
  }
  console.log('message', w.id, JSON.stringify(message).slice(0, 1000)); // of a large one the beginning
});

if (process.env.SETTINGS) cluster.setupPrimary({ exec: 'unused', ...JSON.parse(process.env.SETTINGS) });
else cluster.setupPrimary({ exec: 'unused' });

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const answer = await tools.run(JSON.parse(line));
  console.log('@' + JSON.stringify(answer));
}).on('close', () => process.exit(0));
console.log('up');
