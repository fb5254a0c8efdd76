/**
 * The fixed parts of a zip archive: signatures and lengths of its records.
 *
 * @module
 */

/** A record's first four bytes, as a little-endian number, and the bytes of its fixed part. */
export interface ZipRecord {
  readonly signature: number;
  readonly bytes: number;
}

/** Before each payload. */
export const LOCAL: ZipRecord = { signature: 0x04034b50, bytes: 30 };
/** One per payload in the directory at the end. */
export const CENTRAL: ZipRecord = { signature: 0x02014b50, bytes: 46 };
/** Behind each payload whose header was written before its length was known. */
export const DESCRIPTOR: ZipRecord = { signature: 0x08074b50, bytes: 16 };
/** The last record. */
export const END: ZipRecord = { signature: 0x06054b50, bytes: 22 };
/** The same with 64-bit numbers. */
export const ZIP64_END: ZipRecord = { signature: 0x06064b50, bytes: 56 };
/** Tells where that is. */
export const ZIP64_LOCATOR: ZipRecord = { signature: 0x07064b50, bytes: 20 };

/** Id of the extra field with 64-bit numbers. */
export const ZIP64_FIELD: number = 1;
/** Stand for a number that is in the 64-bit record. */
export const UNKNOWN_16: number = 0xffff;
/** See `UNKNOWN_16`. */
export const UNKNOWN_32: number = 0xffffffff;
