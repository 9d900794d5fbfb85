// Package docs reads the documentation, this directory and the files at the root,
// for the tests that run it: nothing else imports it. testing.md says which tests
// these are and how a block is marked.
package docs
