// Package httpjson maps the messages of the API to JSON and back, by their descriptors:
// a field that is added to a message is in the JSON, too.
//
//   - Names are those of the fields. Every field of an answer is there; null is unset.
//   - Integers are JSON numbers, fingerprints and digests (fixed64) 16 hex digits.
//   - Enum values are their names without the prefix, in lower case: draining.
//   - Durations are Go's text, 1m30s; times are RFC 3339, in UTC.
//   - Bytes are hex digits. A key is text in the field key; key_base64 takes any bytes,
//     in base64 (RFC 4648, section 4). keys and keys_base64 are lists of them.
//
// What is read is read strictly: unknown names, repeated names, values of another type
// and text that is no Unicode are errors, each an [fsm.FieldError].
package httpjson
