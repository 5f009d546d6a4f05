// Command vpn is the end user's client.
package main

import (
	"os"

	"vpnd/client"
)

func main() { os.Exit(client.Main(os.Args[1:])) }
