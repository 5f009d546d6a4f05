// Package client is `vpn`, the end user's client: its command line, and the agent
// process that `vpn up` starts.
//
// It owns commands, what they print and how they exit, where the agent's files
// lie, and how the agent is started and found. What is remembered is package
// profile's, the server's side gate's, the tunnel's life agent's, the machine's
// side tunnel's and dns's. Main is called once per process.
package client
