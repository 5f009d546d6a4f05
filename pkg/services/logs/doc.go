// Package logs is the service that keeps the log lines of all services and
// answers questions about them.
//
// It owns the way of a line from its file into the store, whoever follows new
// lines, saved queries, and how many questions are answered at once. It leaves
// reading files to logtail, what a line says to logline, keeping and finding
// to logstore, and what a query means to logquery. Everything here is called
// concurrently by the server.
package logs
