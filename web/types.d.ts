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
  /** Ours, where `code` is OpenAI's. */
  reason?: string;
  /** HTTP status. */
  status?: number;
  /** Seconds until it may be tried again. */
  wait?: number;
}

/** Token counts, as in OpenAI's Responses API. */
export interface Usage {
  input_tokens: number;
  input_tokens_details?: { cached_tokens?: number };
  output_tokens: number;
  output_tokens_details?: { reasoning_tokens?: number };
}

/** Milliseconds, and tokens per second. */
export interface Timing {
  queued_ms?: number;
  prefill_ms?: number;
  ttft_ms?: number;
  tokens_per_second?: number;
  reasoning_ms?: number;
}

/** What the model saw of the conversation. */
export interface Context {
  /** Tokens. */
  window: number;
  sent: number;
  dropped: readonly string[];
  /** The first item that was sent, if some before it were not. */
  cut: string | null;
  summary?: { item: string; tokens: number } | null;
}

/** An entry's place in the tree. */
interface Placed {
  /** Names the entry for the view; the stream id of an answer that this tab asked for. */
  key: string;
  /** The item's id, null until it is known. */
  id: string | null;
  /** The item above it, null for the first; undefined until it is known. */
  parent: string | null | undefined;
  /** The stored items under the same parent, oldest first, itself among them; empty if it is alone. */
  siblings: readonly string[];
  /** Of the last item read: the items right under it. */
  children: readonly string[];
}

export interface Answer extends Placed {
  kind: 'answer';
  responseId: string | null;
  /** How this tab asked for it, null if it did not. */
  asked: Turn | null;
  /** The text that an answer begins with which goes on: shown until the tape has reached it. */
  carried: string;
  model: string;
  phase: Phase;
  /** Last sequence number applied, -1 before the first. */
  seq: number;
  /** Text by "output.content" index. */
  parts: Readonly<Record<string, string>>;
  /** Calls of tools by item id, in order. */
  calls: Readonly<Record<string, Call>>;
  reasoning: string;
  /** When the first of it came, milliseconds of any clock, and how long it took; 0 if that is not known. */
  thinkingSince: number;
  thoughtMs: number;
  /** An engine was lost in its middle: it waits for the next one, or has it. */
  recovery: '' | 'interrupted' | 'resumed';
  /** Place in the queue from 1, 0 if not told. */
  place: number;
  stopAsked: boolean;
  failure: Failure | null;
  usage: Usage | null;
  timing: Timing | null;
  context: Context | null;
}

export interface Question extends Placed {
  kind: 'user';
  text: string;
}

/** What the model wrote of messages that it is no longer sent. */
export interface Summary extends Placed {
  kind: 'summary';
  text: string;
}

/** A call of a tool. */
export interface Call {
  status: string;
  name: string;
  /** JSON, as far as it was written. */
  arguments: string;
}

/** What a tool gave, or what the model was told by who wrote the app. */
export interface Output extends Placed {
  kind: 'output';
  /** The tool's, '' if the call was not read, null of instructions. */
  name: string | null;
  text: string;
}

export type Entry = Question | Answer | Summary | Output;

/** A response that has not ended. */
export interface Running {
  response_id: string;
  item_id: string;
  parent: string | null;
}

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
  /** An item whose branch is to be shown next; null: the branch shown is the one wanted. */
  leaf: string | null;
  running: readonly Running[];
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
  /** Not a failure. */
  calm?: boolean;
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

/** What is asked for. */
export interface Turn {
  streamId: string;
  conversation: string;
  model: string;
  /** Null: the question stands already. */
  text: string | null;
  /** The item that it goes under. */
  parent: string | null;
  /** The response whose answer goes on, else null. */
  continues: string | null;
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

/** An entry's place among those beside it; `busy`: nothing can be asked now; `dropped`: the model no longer sees it. */
export interface Place {
  ids: readonly string[];
  at: number;
  busy: boolean;
  dropped: boolean;
}

/** An entry of the transcript as an element that follows its value. */
export interface MessageView {
  node: HTMLElement;
  update(entry: Entry): void;
  place(entry: Entry, place: Place): void;
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
  onRegenerate(key: string): void;
  onContinue(key: string): void;
  onEdit(key: string, text: string): void;
  onFork(key: string): void;
  onDelete(key: string): void;
  /** Show the branch of another item under the same parent. */
  onSibling(id: string): void;
  onEarlier(): void;
  onRetry(): void;
  onCopied(copied: boolean): void;
}
