// Runs the execute() of every node of n8n-nodes-piapi, whose built folder is the first argument, without n8n: a small
// context stands for n8n's, and its requests are real HTTP. Prints one line of JSON for each operation.
"use strict";

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { onLoopback } = require("./loopback_only.cjs");

const folder = path.resolve(process.argv[2]);
const BASE = process.env.CLIENTS_BASE;
const KEY = process.env.PIAPI_API_KEY;
const PICTURE = `${BASE}/recorder/picture.png`;
const PICTURE_BYTES = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

// [operation, node, what is set in the node besides its defaults]; `$name` is the task id of the operation of that name.
const OPERATIONS = [
  ["flux", "FluxTextToImage", {}],
  ["flux with lora", "FluxTextToImage", { model: "Qubico/flux1-dev-advanced", useLora: true }],
  ["flux image", "FluxImageToImage", {}],
  ["flux binary", "FluxImageToImage", { imageSource: "binaryData" }],
  ["luma text", "DreamMachineTextToVideo", {}],
  ["luma image", "DreamMachineImageToVideo", {}],
  ["luma extend", "DreamMachineExtendVideo", {}],
  ["wan text", "WanXTextToVideo", {}],
  ["wan image", "WanXImageToVideo", {}],
  ["hunyuan text", "HunyuanTextToVideo", {}],
  ["hunyuan image", "HunyuanImageToVideo", {}],
  ["kling text", "KlingTextToVideo", {}],
  ["kling image", "KlingImageToVideo", {}],
  ["kling extend", "KlingVideoExtend", { originTaskId: "$kling text" }],
  ["kling lip sync", "KlingLipSync", { originTaskId: "$kling text" }],
  ["kling effects", "KlingEffects", {}],
  ["kling try on", "KlingTryOn", {}],
  ["hailuo text", "HailuoTextToVideo", {}],
  ["hailuo image", "HailuoImageToVideo", {}],
  ["hailuo subject", "HailuoSubjectVideo", {}],
  ["skyreels", "SkyreelsImageToVideo", {}],
  ["trellis", "TrellisModelGeneration", {}],
  ["face swap", "FaceswapImageToImage", {}],
  ["video face swap", "FaceswapVideoToVideo", {}],
  ["mmaudio", "MMAudioVideoToAudio", {}],
  ["diffrhythm", "DiffRhythmAudioGeneration", {}],
  ["tts", "TextToSpeech", {}],
  ["midjourney", "PiAPIMidjourney", {}],
  ["midjourney upscale", "PiAPIMidjourney", { operation: "upscale", originTaskId: "$midjourney", imageIndex: "1" }],
  ["video upscale", "VideoUpscale", {}],
  ["image upscale", "ImageUpscale", {}],
  ["background", "RemoveBackground", {}],
  ["segment", "QubicoSegment", {}],
  ["udio", "Udio", { operation: "generateMusic", additionalFields: { waitForCompletion: true } }],
  ["lyrics", "Udio", { operation: "generateLyrics", additionalFields: { waitForCompletion: true } }],
  ["status", "PiAPITaskStatus", { taskId: "$flux" }],
  ["status url", "PiAPITaskStatus", { taskId: "$kling text", returnOnlyImageUrl: true }],
  ["status binary", "PiAPITaskStatus", { taskId: "$flux", returnBinaryData: true }],
  ["upload", "FileUpload", { inputMethod: "binaryFile" }],
  ["upload by hand", "FileUpload", { inputMethod: "manualInput", fileName: "a.png", fileData: PICTURE_BYTES.toString("base64") }],
  ["chat image", "LLMTextToImage", {}],
  ["chat edit", "LLMImageToImage", {}],
];

function nodeClass(name) {
  const file = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8")).n8n.nodes.find((each) =>
    each.endsWith(`/${name}.node.js`),
  );
  return Object.values(require(path.join(folder, file))).find((each) => each.prototype && each.prototype.execute);
}

function filled(property) {
  if (property.default !== "" || !property.required) return property.default;
  return /url|image/i.test(property.name) ? PICTURE : "a red hat on a table";
}

function parameters(description, overrides) {
  const chosen = { waitForCompletion: true, maxRetries: 20, retryInterval: 100, ...overrides };
  const isShown = (property) =>
    Object.entries((property.displayOptions || {}).show || {}).every(([name, values]) =>
      values.includes(chosen[name] !== undefined ? chosen[name] : value(name)),
    );
  function value(name) {
    if (chosen[name] !== undefined) return chosen[name];
    const named = description.properties.filter((each) => each.name === name);
    const property = named.find(isShown) || named[0];
    return property === undefined ? undefined : filled(property);
  }
  return value;
}

function send({ method, url, headers, body, json, encoding }) {
  const target = onLoopback(url);
  const content = json && body !== undefined ? JSON.stringify(body) : body;
  // Also for a GET, whose empty object n8n sends as a body.
  const framed = content === undefined ? headers : { ...headers, "Content-Length": Buffer.byteLength(content) };
  return new Promise((resolve, reject) => {
    const request = http.request(target, { method, headers: framed }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("end", () => {
        const bytes = Buffer.concat(chunks);
        let answer = encoding === null ? bytes : bytes.toString();
        if (json && encoding !== null) {
          try {
            answer = JSON.parse(answer);
          } catch {
            // Server-Sent Events stay a text.
          }
        }
        if (response.statusCode >= 400) reject(new Error(`${response.statusCode} - ${bytes.toString()}`));
        else resolve({ statusCode: response.statusCode, headers: response.headers, body: answer });
      });
    });
    request.on("error", reject);
    request.end(content);
  });
}

function context(description, overrides) {
  const value = parameters(description, overrides);
  const binary = { data: PICTURE_BYTES.toString("base64"), mimeType: "image/png", fileName: "a.png" };
  const helpers = {
    request: async (options) => {
      const answer = await send(options);
      return options.resolveWithFullResponse ? answer : answer.body;
    },
    httpRequestWithAuthentication: async (_type, options) => {
      const answer = await send({ ...options, headers: { ...options.headers, "x-api-key": KEY } });
      return options.returnFullResponse ? answer : answer.body;
    },
    assertBinaryData: () => binary,
    getBinaryDataBuffer: async () => PICTURE_BYTES,
    prepareBinaryData: async (buffer, name, mimeType) => ({ bytes: buffer.length, name, mimeType }),
  };
  return {
    helpers,
    getInputData: () => [{ json: {}, binary: { data: binary } }],
    getNodeParameter: (name, _item, fallback) => {
      const found = value(name);
      return found === undefined ? fallback : found;
    },
    getCredentials: async () => ({ apiKey: KEY }),
    getNode: () => ({ name: description.name, type: description.name, typeVersion: 1 }),
    continueOnFail: () => false,
  };
}

async function main() {
  const tasks = {};
  for (const [operation, name, given] of OPERATIONS) {
    const overrides = Object.fromEntries(
      Object.entries(given).map(([key, text]) => [key, String(text).startsWith("$") ? tasks[text.slice(1)] : text]),
    );
    const line = { operation, node: name };
    try {
      await fetch(`${BASE}/recorder/operation`, { method: "POST", body: operation });
      const Node = nodeClass(name);
      const node = new Node();
      const [[item]] = await node.execute.call(context(node.description, overrides));
      tasks[operation] = (item.json.data || item.json).task_id;
      Object.assign(line, { result: item.json, binary: item.binary });
    } catch (error) {
      line.error = `${error.message} ${error.description || ""}`.trim();
    }
    console.log(JSON.stringify(line));
  }
}

main();
