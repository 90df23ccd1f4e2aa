// The page's words in English, Korean and Vietnamese: one row a text, one column a language.

export const LANGUAGES = /** @type {const} */ ([
  ['en', 'English'],
  ['ko', '한국어'],
  ['vi', 'Tiếng Việt'],
]);

/** @type {Record<string, readonly [string, string, string]>} `{name}` stands for a value. */
export const TABLE = {
  appName: ['Chat', '채팅', 'Trò chuyện'],
  newChat: ['New conversation', '새 대화', 'Cuộc trò chuyện mới'],
  untitled: ['Untitled', '제목 없음', 'Chưa đặt tên'],
  conversations: ['Conversations', '대화 목록', 'Các cuộc trò chuyện'],
  showList: ['Show conversations', '대화 목록 열기', 'Hiện danh sách'],
  search: ['Search conversations', '대화 검색', 'Tìm cuộc trò chuyện'],
  nothingFound: ['No conversation matches.', '일치하는 대화가 없습니다.', 'Không tìm thấy cuộc trò chuyện nào.'],
  noConversations: ['Your conversations will be listed here.', '대화가 여기에 표시됩니다.', 'Các cuộc trò chuyện sẽ hiện ở đây.'],
  more: ['Show more', '더 보기', 'Xem thêm'],
  rename: ['Rename “{title}”', '“{title}” 이름 바꾸기', 'Đổi tên “{title}”'],
  newName: ['New name', '새 이름', 'Tên mới'],
  remove: ['Delete “{title}”', '“{title}” 삭제', 'Xóa “{title}”'],
  removeAsk: ['Delete this conversation?', '이 대화를 삭제할까요?', 'Xóa cuộc trò chuyện này?'],
  removeWarn: ['“{title}” will be gone for good.', '“{title}” 대화가 완전히 삭제됩니다.', '“{title}” sẽ bị xóa vĩnh viễn.'],
  removeDo: ['Delete', '삭제', 'Xóa'],
  cancel: ['Cancel', '취소', 'Hủy'],
  close: ['Close', '닫기', 'Đóng'],
  language: ['Language', '언어', 'Ngôn ngữ'],
  model: ['Model', '모델', 'Mô hình'],
  shortcuts: ['Keyboard shortcuts', '키보드 단축키', 'Phím tắt'],

  greeting: ['What would you like to talk about?', '무엇을 이야기해 볼까요?', 'Bạn muốn nói về điều gì?'],
  greetingHint: [
    'Answers go on even when you leave the page.',
    '페이지를 떠나도 답변은 계속됩니다.',
    'Câu trả lời vẫn tiếp tục khi bạn rời trang.',
  ],
  messageLabel: ['Message', '메시지', 'Tin nhắn'],
  placeholder: ['Write a message', '메시지를 입력하세요', 'Nhập tin nhắn'],
  send: ['Send', '보내기', 'Gửi'],
  stop: ['Stop', '중지', 'Dừng'],
  hintKeys: [
    'Enter sends · Shift + Enter for a new line · Esc stops',
    'Enter 전송 · Shift + Enter 줄바꿈 · Esc 중지',
    'Enter để gửi · Shift + Enter xuống dòng · Esc để dừng',
  ],
  tooLong: [
    'Too long: {count} of at most {limit} characters.',
    '너무 깁니다: {count}자 (최대 {limit}자).',
    'Quá dài: {count} trên tối đa {limit} ký tự.',
  ],

  transcript: ['Transcript', '대화 내용', 'Nội dung trò chuyện'],
  you: ['You', '나', 'Bạn'],
  assistant: ['Assistant', '어시스턴트', 'Trợ lý'],
  copyMessage: ['Copy message', '메시지 복사', 'Sao chép tin nhắn'],
  copyCode: ['Copy code', '코드 복사', 'Sao chép mã'],
  copied: ['Copied', '복사됨', 'Đã sao chép'],
  copyFailed: ['The browser did not allow copying.', '브라우저가 복사를 허용하지 않았습니다.', 'Trình duyệt không cho phép sao chép.'],
  latest: ['Jump to latest', '최신 메시지로', 'Đến tin mới nhất'],
  earlier: ['Show earlier messages', '이전 메시지 보기', 'Xem tin nhắn trước'],
  loading: ['Loading…', '불러오는 중…', 'Đang tải…'],
  retry: ['Try again', '다시 시도', 'Thử lại'],
  sendAgain: ['Send again', '다시 보내기', 'Gửi lại'],
  reasoning: ['Reasoning', '추론 과정', 'Quá trình suy luận'],
  table: ['Table', '표', 'Bảng'],

  sending: ['Sending…', '보내는 중…', 'Đang gửi…'],
  queued: ['Waiting in the queue…', '대기열에서 기다리는 중…', 'Đang chờ trong hàng đợi…'],
  queuedAt: ['Waiting in the queue, place {place}…', '대기열에서 기다리는 중, {place}번째…', 'Đang chờ trong hàng đợi, vị trí {place}…'],
  reading: ['Reading the conversation…', '대화를 읽는 중…', 'Đang đọc cuộc trò chuyện…'],
  resuming: ['Picking up the answer…', '답변을 이어받는 중…', 'Đang nối lại câu trả lời…'],
  answering: ['Answering', '답변하는 중', 'Đang trả lời'],
  answered: ['Answer complete', '답변 완료', 'Đã trả lời xong'],
  stopping: ['Stopping…', '중지하는 중…', 'Đang dừng…'],
  stopped: ['Stopped', '중지됨', 'Đã dừng'],
  cutShort: ['The answer reached its length limit.', '답변이 길이 한도에 도달했습니다.', 'Câu trả lời đã đạt giới hạn độ dài.'],
  failed: ['The answer failed.', '답변에 실패했습니다.', 'Không trả lời được.'],
  unsent: ['The message could not be sent.', '메시지를 보내지 못했습니다.', 'Không gửi được tin nhắn.'],
  contextFull: [
    'The conversation no longer fits the model’s window. Start a new one or send less.',
    '대화가 모델의 컨텍스트를 초과했습니다. 새 대화를 시작하거나 더 짧게 보내세요.',
    'Cuộc trò chuyện vượt quá ngữ cảnh của mô hình. Hãy bắt đầu cuộc mới hoặc gửi ngắn hơn.',
  ],

  connecting: ['Connecting…', '연결하는 중…', 'Đang kết nối…'],
  offline: ['You are offline. Answers go on and will be picked up.', '오프라인입니다. 답변은 계속되며 나중에 이어집니다.', 'Bạn đang ngoại tuyến. Câu trả lời vẫn tiếp tục và sẽ được nối lại.'],
  reconnecting: ['Connection lost. Trying again…', '연결이 끊겼습니다. 다시 연결하는 중…', 'Mất kết nối. Đang thử lại…'],
  refused: ['The server closed the connection: {reason}', '서버가 연결을 종료했습니다: {reason}', 'Máy chủ đã đóng kết nối: {reason}'],
  reconnect: ['Connect again', '다시 연결', 'Kết nối lại'],
  modelLoading: ['The model is being prepared: {reason}', '모델을 준비하는 중입니다: {reason}', 'Đang chuẩn bị mô hình: {reason}'],

  signIn: ['Sign in', '로그인', 'Đăng nhập'],
  signInWhy: ['This server asks for an API key.', '이 서버는 API 키가 필요합니다.', 'Máy chủ này yêu cầu khóa API.'],
  apiKey: ['API key', 'API 키', 'Khóa API'],
  badKey: ['The server does not accept this key.', '서버가 이 키를 받아들이지 않습니다.', 'Máy chủ không chấp nhận khóa này.'],
  remember: ['Remember it in this browser', '이 브라우저에 저장', 'Ghi nhớ trong trình duyệt này'],

  ttft: ['{ms} to first token', '첫 토큰 {ms}', 'token đầu sau {ms}'],
  speed: ['{n} tokens/s', '초당 {n} 토큰', '{n} token/giây'],
  promptTokens: ['{n} prompt tokens', '프롬프트 {n} 토큰', '{n} token đầu vào'],
  cachedTokens: ['{n} cached ({share})', '캐시 {n} ({share})', '{n} từ bộ đệm ({share})'],
  outputTokens: ['{n} written', '출력 {n}', '{n} đã viết'],
  figures: ['Figures of this answer', '답변 수치', 'Số liệu của câu trả lời'],

  keySend: ['Send the message', '메시지 보내기', 'Gửi tin nhắn'],
  keyNewline: ['New line', '줄바꿈', 'Xuống dòng'],
  keyStop: ['Stop the answer', '답변 중지', 'Dừng câu trả lời'],
  keyNew: ['New conversation', '새 대화', 'Cuộc trò chuyện mới'],
  keyHelp: ['This sheet (outside the message field)', '이 도움말 (입력창 밖에서)', 'Bảng này (ngoài ô nhập)'],
};

/** @returns {string} the language to start with: the stored choice, else the browser's first that we speak. */
export function preferredLanguage(/** @type {string | null} */ stored, /** @type {readonly string[]} */ wanted) {
  const known = LANGUAGES.map(([code]) => /** @type {string} */ (code));
  const candidates = [stored ?? '', ...wanted].map((tag) => tag.toLowerCase().split('-')[0] ?? '');
  return candidates.find((code) => known.includes(code)) ?? 'en';
}

/**
 * The speaker of one language: `t(key, values)` for texts, `t.number` and `t.duration` for figures.
 * @param {string} language
 */
export function speaker(language) {
  const column = Math.max(0, LANGUAGES.findIndex(([code]) => code === language));
  const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
  const tenths = new Intl.NumberFormat(language, { maximumFractionDigits: 1 });

  /** @param {string} key @param {Record<string, string | number>} [values] */
  const t = (key, values = {}) => {
    const row = TABLE[key];
    if (!row) throw new Error(`text: no row ${key}`);
    return /** @type {string} */ (row[column]).replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ''));
  };
  return Object.assign(t, {
    language,
    /** Counts in full, small rates with one decimal. @param {number} value */
    number: (value) => (value < 100 ? tenths : whole).format(value),
    /** @param {number} ms */
    duration: (ms) => (ms < 1000 ? `${whole.format(ms)} ms` : `${tenths.format(ms / 1000)} s`),
    /** @param {number} share between 0 and 1 */
    percent: (share) => `${whole.format(share * 100)} %`,
  });
}

/** @typedef {ReturnType<typeof speaker>} Speaker */
