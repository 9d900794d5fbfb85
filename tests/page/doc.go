// Package page tests the web page of a node: a real Chromium, driven by chromedp, looks at real processes. Without
// Chromium the tests are skipped.
package page
