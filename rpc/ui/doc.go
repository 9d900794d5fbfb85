// Package ui is the web page of a node: embedded files and their handler. The page reads the API under /v1
// like any other client, with the token that its user enters, and changes nothing.
//
// The files hold no data of the registry, so they are open to everybody. They need no build step, load
// nothing from elsewhere, and are served with a content security policy that forbids inline code, other
// origins, and the conversion of text to markup (trusted types). The ring is computed in the browser, by the
// modules of the JavaScript SDK.
package ui
