/**
 * Header fields of requests and answers beside those that every one has, for the OpenAPI document.
 *
 * @module
 */

/** A field that requests may have. */
export type RequestHeader =
  | "Content-Digest"
  | "Idempotency-Key"
  | "If-Match"
  | "If-None-Match"
  | "If-Range"
  | "Last-Event-ID"
  | "Range"
  | "Repr-Digest"
  | "Upload-Complete"
  | "Upload-Length"
  | "Upload-Offset";

/** What the fields of requests say. */
export const REQUEST_HEADERS: Readonly<Record<RequestHeader, string>> = {
  "Content-Digest": "sha-256=:BASE64: of the bytes of this request (RFC 9530)",
  "Idempotency-Key": "1 to 128 visible ASCII characters: a repeated request is answered as the first",
  "If-Match": "Entity tags: done only while one of them holds, else 412",
  "If-None-Match": "Entity tags: a read answers 304 and a write 412 when one of them holds",
  "If-Range": "An entity tag: the whole comes when it does not hold",
  "Last-Event-ID": "Number of the last event that came",
  Range: "One range of bytes; several are answered by the whole",
  "Repr-Digest": "sha-256=:BASE64: of the whole file (RFC 9530)",
  "Upload-Complete": "?1 when the upload ends with this request, else ?0",
  "Upload-Length": "Bytes of the whole file",
  "Upload-Offset": "Where these bytes belong: how many the service holds",
};

/** Fields of requests that depend on what is there. */
export const CONDITIONS: readonly RequestHeader[] = ["If-Match", "If-None-Match"];

/** Fields of requests for content that can be had in part. */
export const RANGES: readonly RequestHeader[] = [...CONDITIONS, "If-Range", "Range"];

/** A field that answers may have. */
export type AnswerHeader =
  | "Accept-Ranges"
  | "Content-Disposition"
  | "Content-Range"
  | "Content-Size"
  | "ETag"
  | "Link"
  | "Location"
  | "Repr-Digest"
  | "Tensor-Dtype"
  | "Tensor-Shape"
  | "Upload-Complete"
  | "Upload-Length"
  | "Upload-Limit"
  | "Upload-Offset";

/** What the fields of answers say. */
export const ANSWER_HEADERS: Readonly<Record<AnswerHeader, string>> = {
  "Accept-Ranges": "bytes",
  "Content-Disposition": "Name for a downloaded file",
  "Content-Range": "Which bytes these are, and of how many",
  "Content-Size": "Bytes of the body, which ends no sooner unless the connection was cut",
  ETag: "Strong entity tag",
  Link: "The next page, where there is one",
  Location: "The resource that this is about",
  "Repr-Digest": "sha-256=:BASE64: of the whole content (RFC 9530)",
  "Tensor-Dtype": "Dtype of the elements, by PyTorch's name",
  "Tensor-Shape": "Sizes, separated by commas",
  "Upload-Complete": "?1 once the upload has become a file, else ?0",
  "Upload-Length": "Bytes of the whole file, where they are known",
  "Upload-Limit": "Most bytes of a file (max-size) and of one append (max-append-size)",
  "Upload-Offset": "Bytes that the service holds",
};

/** Fields of answers that tell where an upload stands. */
export const STANDING: readonly AnswerHeader[] = [
  "Upload-Complete",
  "Upload-Length",
  "Upload-Limit",
  "Upload-Offset",
];

/** Fields of answers that are content which can be had in part. */
export const CONTENT: readonly AnswerHeader[] = ["Accept-Ranges", "Content-Size", "ETag"];
