// Package daemon composes vpnd out of its parts: which services there are, as
// whom they run, who may call whom; the supervisor process; and the subcommands
// of the program.
//
// It owns the service table, the folders and the supervisor's operations. It
// leaves supervising to pkg/supervise and everything a service does to the
// services.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"vpnd/pkg/build"
	"vpnd/pkg/config"
	"vpnd/pkg/fault"
	"vpnd/pkg/service"
	"vpnd/pkg/services/lanes"
)

const usage = `vpnd - a self-hosted VPN with two lanes: WireGuard to the internet, and through Tor

Usage:
  vpnd run [--config FILE]            run the supervisor and every service
  vpnd init [--config FILE] [--dry-run]
                                      make the system accounts and folders
  vpnd config check FILE              report every problem of a configuration
  vpnd config default                 print the configuration with its defaults
  vpnd config services [--config FILE]
                                      print the built-in services as services.json
  vpnd teardown [--config FILE]       remove interfaces, wireguard-go and firewall table
  vpnd version                        print the version

Everything else is done with vpnctl.
`

// Main runs vpnd and gives its exit status.
func Main(args []string) int {
	if len(args) > 0 && args[0] == "service" {
		return serviceCommand(args[1:])
	}
	return report(dispatch(args))
}

// report tells what went wrong and gives the exit status.
func report(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
		return 0
	}
	f := fault.From(err)
	fmt.Fprintln(os.Stderr, "vpnd:", err)
	if f.Hint != "" {
		fmt.Fprintln(os.Stderr, "hint:", f.Hint)
	}
	return f.Code.ExitStatus()
}

func dispatch(args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return fault.New(fault.Invalid, "no command")
	}
	command, rest := args[0], args[1:]
	switch command {
	case "run":
		return withConfig(command, rest, runCommand)
	case "init":
		return initCommand(rest)
	case "teardown":
		return withConfig(command, rest, teardown)
	case "config":
		return configCommand(rest)
	case "version":
		if err := parse(flags(command), rest); err != nil {
			return err
		}
		b := build.Get()
		fmt.Printf("vpnd %s (%s, %s/%s)\n", b.Version, b.Go, b.OS, b.Arch)
		return nil
	case lanes.DaemonCommand:
		return lanes.RunDaemon(context.Background(), rest)
	case "help", "-h", "--help":
		return flag.ErrHelp
	}
	return fault.New(fault.Invalid, "unknown command %q", command).WithHint("'vpnd help' lists them")
}

// flags makes a flag set whose mistakes come back as errors, without a dump.
func flags(command string) *flag.FlagSet {
	fs := flag.NewFlagSet("vpnd "+command, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

func parse(fs *flag.FlagSet, args []string) error {
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return fault.Wrap(err, fault.Invalid, "%s", fs.Name()).WithHint("'vpnd help' shows the flags")
	case fs.NArg() > 0:
		return fault.New(fault.Invalid, "%s: unexpected argument %q", fs.Name(), fs.Arg(0))
	}
	return nil
}

func withConfig(command string, args []string, do func(path string) error) error {
	fs := flags(command)
	path := fs.String("config", config.DefaultPath, "configuration file")
	if err := parse(fs, args); err != nil {
		return err
	}
	abs, err := filepath.Abs(*path)
	if err != nil {
		return err
	}
	return do(abs)
}

func runCommand(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return Run(ctx, path)
}

// teardown removes what outlives vpnd. A vpnd that runs would make it again.
func teardown(path string) error {
	if os.Geteuid() != 0 {
		return fault.New(fault.Denied, "vpnd teardown needs root")
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.Paths.State); err == nil {
		unlock, err := own(c)
		if err != nil {
			return err
		}
		defer unlock()
	}
	return lanes.Teardown(context.Background(), c, filepath.Join(c.Paths.Run, "lanes"))
}

// serviceCommand is a service process. service.Main tells by itself what goes
// wrong.
func serviceCommand(args []string) int {
	if len(args) != 1 {
		return report(fault.New(fault.Invalid, "vpnd service NAME is started by 'vpnd run'"))
	}
	e, ok := lookup(args[0])
	if !ok {
		return report(fault.New(fault.NotFound, "no service %q", args[0]))
	}
	return service.Main(e.define())
}

func configCommand(args []string) error {
	if len(args) == 0 {
		return fault.New(fault.Invalid, "vpnd config needs check, default or services").WithHint("'vpnd help' shows them")
	}
	switch args[0] {
	case "default":
		if err := parse(flags("config default"), args[1:]); err != nil {
			return err
		}
		out, err := config.Print(config.Default())
		if err == nil {
			_, err = os.Stdout.Write(out)
		}
		return err
	case "check":
		if len(args) != 2 || strings.HasPrefix(args[1], "-") {
			return fault.New(fault.Invalid, "usage: vpnd config check FILE")
		}
		return check(args[1])
	case "services":
		return withConfig("config services", args[1:], printServices)
	}
	return fault.New(fault.Invalid, "unknown command \"config %s\"", args[0]).WithHint("'vpnd help' lists them")
}

// check judges a configuration and the services.json beside it, without the
// host that they are for.
func check(path string) error {
	// At its usual place a missing file would count as the defaults.
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(err, fault.NotFound, "cannot read configuration")
	}
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	base, err := builtin(c, accounts{}, "/usr/sbin/vpnd")
	if err != nil {
		return err
	}
	if _, err := specs(base, servicesPath(path)); err != nil {
		return err
	}
	fmt.Printf("%s: ok\n", path)
	return nil
}
