// A NATS client by hand: node takes part in a fleet with subjects and JSON bodies, and
// needs nothing of Go. Usage: node client.js PORT FLEET
'use strict';
const net = require('net');
const [port, fleet] = process.argv.slice(2);
const subject = (rest) => `cluster.${fleet}.${rest}`;
const server = net.connect({ port: Number(port), host: '127.0.0.1' });
const handlers = []; // by the number of the subscription

function publish(to, value, reply = '') {
  const body = Buffer.from(JSON.stringify(value));
  server.write(`PUB ${to} ${reply && reply + ' '}${body.length}\r\n`);
  server.write(Buffer.concat([body, Buffer.from('\r\n')]));
}

function subscribe(to, fn, queue = '') {
  server.write(`SUB ${to} ${queue && queue + ' '}${handlers.push(fn) - 1}\r\n`);
}

function line(text, body) {
  const [verb, ...args] = text.split(' ');
  if (verb === 'INFO') {
    server.write('CONNECT {"verbose":false}\r\n');
    subscribe(subject('topic.from-go'), (v) => publish(subject('topic.from-node'), { heard: v }));
    subscribe(subject('request.double'), (v, reply) => publish(reply, 2 * v), 'cluster');
    subscribe('_INBOX.node', (sum) => publish(subject('topic.sum'), sum));
    publish(subject('request.sum'), [1, 2, 3], '_INBOX.node');
  } else if (verb === 'PING') {
    server.write('PONG\r\n');
  } else if (verb === 'MSG') { // subject, subscription, perhaps where to reply, size
    handlers[args[1]](JSON.parse(body), args.length === 4 ? args[2] : undefined);
  } else if (verb === '-ERR') {
    throw new Error(text);
  }
}

let rest = Buffer.alloc(0);
server.on('data', (data) => {
  rest = Buffer.concat([rest, data]);
  for (let end; (end = rest.indexOf('\r\n')) >= 0;) {
    const text = rest.toString('utf8', 0, end);
    const size = text.startsWith('MSG ') ? Number(text.split(' ').pop()) : -2;
    if (rest.length < end + 2 + size + 2) return; // its body has not come
    const body = rest.toString('utf8', end + 2, end + 2 + Math.max(size, 0));
    rest = rest.subarray(end + 2 + size + 2);
    line(text, body);
  }
});
server.on('close', () => process.exit());
