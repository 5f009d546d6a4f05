// Command vpnctl is the operator's command line.
package main

import (
	"os"

	"vpnd/pkg/cli"
	"vpnd/pkg/cli/labcmd"
)

func main() { os.Exit(cli.Main(os.Args[1:], labcmd.New())) }
