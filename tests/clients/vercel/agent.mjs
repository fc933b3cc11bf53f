// Plays tasks through the Vercel AI SDK. stdin: {base_url, tasks: [...]}; stdout: one JSON list of what came out.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;

const PROVIDERS = {
  chat: (settings, model) => createOpenAI(settings).chat(model),
  responses: (settings, model) => createOpenAI(settings).responses(model),
  messages: (settings, model) => createAnthropic(settings)(model),
  compatible: (settings, model) => createOpenAICompatible({ name: "proxy", includeUsage: true, ...settings })(model),
};

const OPTIONS = {
  openai: { reasoningEffort: "medium", reasoningSummary: "auto", store: false, forceReasoning: true },
  anthropic: { thinking: { type: "enabled", budgetTokens: 2000 } },
  proxy: { reasoningEffort: "medium" },
};

function tools(asked) {
  const says = (name) => (input) => {
    asked.push([name, input]);
    return `${name} says ${Object.values(input)[0]}`;
  };
  return {
    crm_read: tool({ description: "Reads.", inputSchema: z.object({ id: z.number() }), execute: says("crm_read") }),
    kb_search: tool({ description: "Finds.", inputSchema: z.object({ query: z.string() }), execute: says("kb_search") }),
  };
}

async function streamed(asked) {
  const errors = [];
  const result = streamText({ ...asked, onError: ({ error }) => errors.push(error) });
  let text = "";
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") text += part.text;
    if (part.type === "error") throw part.error;
  }
  if (errors.length) throw errors[0];
  const steps = await result.steps;
  return { text, steps, final: await result.text, output: asked.output && (await result.output) };
}

async function whole(asked) {
  const result = await generateText(asked);
  return { text: result.text, steps: result.steps, final: result.text, output: asked.output && result.output };
}

async function play(baseURL, task) {
  const settings = { baseURL, apiKey: task.key, headers: { "x-run-id": task.run } };
  const asked = [];
  const request = {
    model: PROVIDERS[task.api](settings, task.model),
    prompt: task.prompt,
    maxRetries: 0,
    maxOutputTokens: 4000,
    stopWhen: stepCountIs(5),
  };
  if (task.tools) Object.assign(request, { tools: tools(asked), system: "Be brief.", providerOptions: OPTIONS });
  if (task.city) request.output = Output.object({ schema: z.object({ name: z.string(), people: z.number() }) });
  try {
    const done = await (task.stream ? streamed : whole)(request);
    return {
      text: done.text,
      final: done.final,
      output: done.output,
      asked,
      finish: done.steps.map((step) => step.finishReason),
      reasoning: done.steps.map((step) => step.reasoningText ?? ""),
      output_tokens: done.steps.map((step) => step.usage.outputTokens),
      call_id: done.steps.at(-1).response.headers?.["x-call-id"],
    };
  } catch (error) {
    return {
      error: error?.name ?? error?.constructor?.name ?? typeof error,
      is_api_call_error: APICallError.isInstance(error),
      status: error?.statusCode,
      retry_after: error?.responseHeaders?.["retry-after"],
      message: error instanceof Error ? error.message : JSON.stringify(error),
    };
  }
}

let input = "";
for await (const chunk of process.stdin) input += chunk;
const { base_url, tasks } = JSON.parse(input);
const results = [];
for (const task of tasks) results.push(await play(base_url, task));
process.stdout.write(JSON.stringify(results));
