// Package audit writes who changed what, and who was refused: a line for each
// administrative act and for each refusal.
//
// An act that had an effect, or may have had one, is always written. What failed is
// written up to a limit for each source, and one line says how many lines were left out:
// unauthenticated callers cannot fill a disk. No line has a secret. A line that cannot be written
// fails no call.
package audit
