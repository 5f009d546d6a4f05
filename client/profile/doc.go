// Package profile keeps what the client remembers: the server and its pin, who
// is signed in, the tokens, the WireGuard key, the latest session. It owns the
// file profile.json, where it lies, who may read it and that it changes as a
// whole or not at all. It leaves the meaning of tokens to the server.
//
// A *Store may be used concurrently, by several processes too: Update holds a
// lock on the folder, Load needs none.
package profile
