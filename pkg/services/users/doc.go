// Package users is the service that owns accounts: who there is, whether they
// may use the system, what they have used so far.
//
// A change that others must act on (suspension, deletion, a new password) is
// committed together with a task that says so. The call answers when the task
// is done; a task that could not be done is retried until it is, also after a
// crash. The package leaves signing in and devices to auth, peers to sessions.
// It alone writes users.db, so standings are answered from memory. A Users may
// be used concurrently once Load has returned.
package users
