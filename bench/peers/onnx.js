// SPDX-License-Identifier: MIT
// ONNX Runtime's side of the benchmarks (npm onnxruntime-node): answers the requests of bench/lib/worker.lua, one a
// line,
//
//   decoder model=PATH batch=128 threads=2 seconds=0.1 [clock=cpu]    times of calls in ms
//   check model=PATH x= y=                                            pixels of one point of the latent plane
//
// Graph optimizations are on, all of them; everything else is as the package has it.
"use strict";
const ort = require("onnxruntime-node");
const readline = require("readline");

const sessions = new Map();

async function sessionFor(model, threads) {
  const key = `${model} ${threads}`;
  if (!sessions.has(key)) {
    const options = { intraOpNumThreads: threads, interOpNumThreads: 1, graphOptimizationLevel: "all" };
    sessions.set(key, await ort.InferenceSession.create(model, options));
  }
  return sessions.get(key);
}

function points(values) {
  return { z: new ort.Tensor("float32", Float32Array.from(values), [values.length / 2, 2]) };
}

function cpuTime() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function decoder(a) {
  const clock = a.clock === "cpu" ? cpuTime : () => performance.now();
  const session = await sessionFor(a.model, Number(a.threads));
  const feeds = points(Array.from({ length: 2 * a.batch }, (_, i) => Math.sin(i)));
  const times = [];
  await session.run(feeds);
  const stop = clock() + 1000 * a.seconds;
  do {
    const start = clock();
    await session.run(feeds);
    times.push(clock() - start);
  } while (clock() < stop);
  return times;
}

async function check(a) {
  const session = await sessionFor(a.model, 1);
  const results = await session.run(points([Number(a.x), Number(a.y)]));
  return Array.from(results[session.outputNames[0]].data);
}

const kinds = { decoder, check };

async function answer(line) {
  const [kind, ...pairs] = line.split(" ");
  try {
    const result = await kinds[kind](Object.fromEntries(pairs.map((pair) => pair.split("="))));
    return "ok " + result.map((x) => x.toPrecision(9)).join(" ");
  } catch (error) {
    return "error " + String(error).replace(/\s+/g, " ");
  }
}

async function main() {
  console.log(`ready ONNX Runtime ${ort.env.versions.node || ort.env.versions.common}`);
  for await (const line of readline.createInterface({ input: process.stdin })) console.log(await answer(line));
}

main();
