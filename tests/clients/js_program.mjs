/* Run by Node, beside `node_modules`: do what a user of one @huggingface/inference does.
 *
 *     node js_program.mjs JOB
 *
 * JOB is a JSON object: `package` (an alias in package.json), `token`, `url` (an endpoint),
 * `scenarios` (names from below), `picture` (a path), `modelId`, `options` (the client's own), and
 * optionally `hosts`, a base URL that every host of Hugging Face's is replaced with: models that are
 * named by id. Prints a JSON object with each scenario's `{value}` or `{error, status, text}`, and
 * how many requests it took.
 */

import { openAsBlob, readFileSync } from "node:fs";

const job = JSON.parse(process.argv[2]);
const { InferenceClient, HfInference } = await import(job.package);
let requests = 0;
// Standard output is for the result; version 4 logs what it decides.
console.log = console.error;

/* The clients have no setting for the host of a model's id, but for `fetch`. */
async function countedFetch(input, init) {
	requests += 1;
	const { pathname, search } = new URL(input);
	return fetch(job.hosts ? new URL(pathname + search, job.hosts) : input, init);
}

const byId = Boolean(job.hosts);
const client = new (InferenceClient ?? HfInference)(job.token);
const endpoint = byId ? client : client.endpoint(job.url);
// Before 4, a client asks the hub for a default model, endpoint or not, unless it is told one.
const args = byId || !InferenceClient ? { model: job.modelId } : {};
const options = { ...job.options, fetch: countedFetch };
const bytes = () => new Uint8Array(readFileSync(job.picture)).buffer;
const base64 = () => readFileSync(job.picture).toString("base64");

const SCENARIOS = {
	bytes: () => endpoint.imageClassification({ ...args, data: bytes() }, options),
	path: async () => {
		const data = await openAsBlob(job.picture, { type: "image/png" });
		return endpoint.imageClassification({ ...args, data }, options);
	},
	inputs: async () => {
		const inputs = await openAsBlob(job.picture);
		return endpoint.imageClassification({ ...args, inputs }, options);
	},
	base64: () => endpoint.imageClassification({ ...args, inputs: base64() }, options),
	parameters: () => {
		const parameters = { top_k: 2, function_to_apply: "sigmoid" };
		const task = "image-classification";
		return endpoint.request({ ...args, inputs: base64(), parameters }, { ...options, task });
	},
};

async function outcome(scenario) {
	requests = 0;
	try {
		return { value: await SCENARIOS[scenario](), requests };
	} catch (error) {
		return { error: error.name, status: error.httpResponse?.status, text: error.message, requests };
	}
}

const outcomes = {};
for (const scenario of job.scenarios) {
	outcomes[scenario] = await outcome(scenario);
}
process.stdout.write(JSON.stringify(outcomes));
