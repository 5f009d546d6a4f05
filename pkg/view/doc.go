// Package view is how things look on a terminal: the columns of every noun,
// units of sizes and times, words and colours of states.
//
// It owns what is shown and how it is aligned, so that the command line and
// the dashboard show the same; it reads no input and writes no output. All
// text is made harmless before it is shown: values come from devices and log
// files, and a terminal obeys control characters. Everything here is free of
// state and may be used concurrently.
package view
