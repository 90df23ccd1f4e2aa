// The shapes that the modules share. Only the type checker reads this file; no browser loads it.

/** A frame of the server, or a `local.…` event of the page. */
export interface Event {
  type: string;
  [field: string]: any;
}

/** `resuming`: after a reload, or found running. `lost`: the tape is gone, the items have the answer. */
export type Phase =
  | 'sending' | 'queued' | 'reading' | 'answering' | 'resuming'
  | 'completed' | 'stopped' | 'incomplete' | 'failed' | 'lost';

export interface Failure {
  /** The server's machine-readable word. */
  code: string;
  /** For people. */
  message: string;
  /** HTTP status. */
  status?: number;
}

/** Token counts, as in OpenAI's Responses API. */
export interface Usage {
  input_tokens: number;
  input_tokens_details?: { cached_tokens?: number };
  output_tokens: number;
}

/** Milliseconds, and tokens per second. */
export interface Timing {
  queued_ms?: number;
  prefill_ms?: number;
  ttft_ms?: number;
  tokens_per_second?: number;
}

export interface Answer {
  kind: 'answer';
  /** Names the entry for the view; the stream id of an answer that this tab asked for. */
  key: string;
  /** The item's id, once known. */
  id: string | null;
  responseId: string | null;
  model: string;
  phase: Phase;
  /** Last sequence number applied, -1 before the first. */
  seq: number;
  /** Text by "output.content" index. */
  parts: Readonly<Record<string, string>>;
  reasoning: string;
  /** Place in the queue from 1, 0 if not told. */
  place: number;
  stopAsked: boolean;
  failure: Failure | null;
  usage: Usage | null;
  timing: Timing | null;
}

export interface Question {
  kind: 'user';
  key: string;
  /** The item's id, null until the items were read. */
  id: string | null;
  text: string;
}

export type Entry = Question | Answer;

export interface Transcript {
  phase: 'loading' | 'ready' | 'failed';
  /** Oldest first. */
  entries: readonly Entry[];
  /** Whether older entries exist that were not read. */
  more: boolean;
  /** Id of the oldest item read: where the page before it ends. */
  oldest: string | null;
  /** How many questions this tab has sent; tells whether a reading of the items is stale. */
  sent: number;
}

export interface Conversation {
  id: string;
  title: string;
  /** Unix seconds. */
  created_at: number;
}

export type ConnectionPhase = 'connecting' | 'open' | 'waiting' | 'offline' | 'refused';

export interface List {
  phase: 'loading' | 'ready';
  conversations: readonly Conversation[];
  more: boolean;
  query: string;
}

/** `text`: a key of text.js, or `raw` with `values.message` in the server's words. */
export interface Notice {
  text: string;
  values: Record<string, string>;
}

export interface State {
  connection: { phase: ConnectionPhase; reason: string };
  server: { ready: boolean; reason: string };
  signIn: null | 'needed' | 'refused';
  models: readonly string[];
  model: string;
  list: List;
  /** Id of the conversation shown, null for a new one. */
  open: string | null;
  /** By conversation id, the one opened last at the end. */
  transcripts: Readonly<Record<string, Transcript>>;
  /** Conversation id by stream id, of running answers. */
  live: Readonly<Record<string, string>>;
  notice: Notice | null;
}

/** A running answer as a reload finds it again. */
export interface Remembered {
  streamId: string;
  conversation: string;
  responseId: string;
}

/** A question on its way. */
export interface Turn {
  streamId: string;
  conversation: string;
  model: string;
  text: string;
}

/** Who owns a connection. */
export interface ConnectionListener {
  /** A fresh connection: ask for everything again. */
  onOpen(): void;
  onFrame(frame: any): void;
  onPhase(phase: ConnectionPhase, reason?: string): void;
  onUnauthenticated(): void;
  /** Whether frames are due, so that silence means trouble. */
  expecting(): boolean;
  /** The API key, if there is one. */
  token(): string | null;
}

/** What a connection needs of the browser; replaced in tests. */
export interface Surroundings {
  connect(url: string): WebSocket;
  setTimeout(call: () => void, ms: number): any;
  clearTimeout(timer: any): void;
  online(): boolean;
}

/** A key press, as keydown tells it. */
export interface Press {
  key: string;
  code: string;
  keyCode: number;
  isComposing: boolean;
  shiftKey: boolean;
}

/** Labels of the parts of Markdown that need one. */
export interface MarkdownWords {
  copyCode: string;
  table: string;
}

/** An entry of the transcript as an element that follows its value. */
export interface MessageView {
  node: HTMLElement;
  update(entry: Entry): void;
}

export interface SidebarListener {
  onRename(id: string, title: string): void;
  onRemove(conversation: Conversation): void;
  onSearch(query: string): void;
  onMore(): void;
}

export interface TranscriptListener {
  /** A finished answer without figures came into view. */
  onVisible(key: string): void;
  /** Send a refused message again. */
  onAgain(key: string): void;
  onEarlier(): void;
  onRetry(): void;
  onCopied(copied: boolean): void;
}
