// Which language is spoken. A script of its own, before the page's: its words are then on their way while the rest is.

import { memory } from './memory.js';
import { preferredLanguage, speaker } from './text.js';

export const spoken = speaker(preferredLanguage(memory.language, navigator.languages));
