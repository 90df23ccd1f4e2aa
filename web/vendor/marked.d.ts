// The little of marked that the page uses; the page never calls its HTML renderer.
export interface Token {
  type: string;
  raw: string;
  text?: string;
  tokens?: Token[];
  [field: string]: any;
}
export class Tokenizer {
  constructor(options?: object);
  emStrong(source: string, masked: string, before: string): Token | undefined;
  del(source: string, masked: string, before: string): Token | undefined;
  [name: string]: any;
}
export class Lexer {
  constructor(options: object);
  lex(source: string): Token[];
}
export function getDefaults(): Record<string, unknown>;
