'use strict';
// What the scripts of the tests share: running code that the test sends, and
// promises for what node says with events.

const events = require('events');
const modules = {
  events,
  cluster: require('cluster'),
  dgram: require('dgram'),
  fs: require('fs'),
  http: require('http'),
  net: require('net'),
  os: require('os'),
  path: require('path'),
  tls: require('tls'),
};

// until resolves when emitter emits name and rejects when it emits 'error'.
const until = (emitter, name) => new Promise((resolve, reject) => {
  emitter.once('error', reject);
  emitter.once(name, (...args) => {
    emitter.removeListener('error', reject);
    resolve(args);
  });
});

const helpers = {
  // state is kept from one piece of code to the next.
  state: {},

  until,

  // listen resolves to the address of a net, http or tls server.
  async listen(server, ...args) {
    const listening = until(server, 'listening');
    server.listen(...args);
    await listening;
    return server.address();
  },

  // bind resolves to the address of a datagram socket.
  async bind(socket, ...args) {
    const listening = until(socket, 'listening');
    socket.bind(...args);
    await listening;
    return socket.address();
  },

  // close resolves when the server or socket is closed.
  close: (server) => new Promise((resolve) => server.close(resolve)),

  // connect resolves to a connected socket.
  async connect(...args) {
    const socket = modules.net.connect(...args);
    await until(socket, 'connect');
    return socket;
  },
};

const AsyncFunction = (async () => {}).constructor;

exports.extend = (more) => Object.assign(helpers, more);

// run runs code and resolves to what has to be told about it.
exports.run = async ({ id, code, args }) => {
  const scope = { require, ...modules, ...helpers, args: args || [] };
  try {
    const value = await new AsyncFunction(...Object.keys(scope), code)(...Object.values(scope));
    return { id, value: value === undefined ? null : value };
  } catch (e) {
    const { message, code, errno, syscall, address, port } = e;
    return { id, error: { message, code, errno, syscall, address, port } };
  }
};
