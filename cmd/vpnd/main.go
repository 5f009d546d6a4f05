// Command vpnd is the daemon: the supervisor, and every service it starts.
package main

import (
	"os"

	"vpnd/pkg/daemon"
)

func main() { os.Exit(daemon.Main(os.Args[1:])) }
