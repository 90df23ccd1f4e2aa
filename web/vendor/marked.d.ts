// The little of marked that the page uses; the page never calls its HTML renderer.
export interface Token {
  type: string;
  raw: string;
  text?: string;
  tokens?: Token[];
  [field: string]: any;
}
export class Marked {
  constructor(...options: object[]);
  lexer(source: string): Token[];
}
