// Package sessions is the service that owns sessions: it opens them, keeps them
// online while a device is heard from, closes them, and is the only one that
// tells lanes which peers there should be.
//
// It owns sessions.db and the agreement of sessions with peers and leases. A
// session is durable before its peer exists, and closed durably before its
// peer goes, so that a crash anywhere is finished by the next Sync. It leaves
// accounts, devices, addresses and interfaces to its siblings. A Manager may
// be used concurrently. DESIGN.md tells about locks and crashes.
package sessions
