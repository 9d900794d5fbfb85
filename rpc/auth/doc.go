// Package auth decides what a caller may do, from the tokens of a state.
//
// While the state has no token, everybody may do everything. From then on a call is
// denied unless a token allows it. The package knows no method: package rpc declares
// what each one needs.
package auth
