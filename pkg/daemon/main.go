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
	err := dispatch(args)
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
		return withConfig(command, rest, func(path string) error {
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			return lanes.Teardown(context.Background(), c, filepath.Join(c.Paths.Run, "lanes"))
		})
	case "config":
		return configCommand(rest)
	case "version":
		b := build.Get()
		fmt.Printf("vpnd %s (%s, %s/%s)\n", b.Version, b.Go, b.OS, b.Arch)
		return nil
	case "service":
		return serviceCommand(rest)
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

func serviceCommand(args []string) error {
	if len(args) != 1 {
		return fault.New(fault.Invalid, "vpnd service NAME is started by 'vpnd run'")
	}
	e, ok := lookup(args[0])
	if !ok {
		return fault.New(fault.NotFound, "no service %q", args[0])
	}
	if status := service.Main(e.define()); status != 0 {
		os.Exit(status) // service.Main has told why
	}
	return nil
}

func configCommand(args []string) error {
	if len(args) == 0 {
		return fault.New(fault.Invalid, "vpnd config needs check, default or services").WithHint("'vpnd help' shows them")
	}
	switch args[0] {
	case "default":
		out, err := config.Print(config.Default())
		if err == nil {
			_, err = os.Stdout.Write(out)
		}
		return err
	case "check":
		if len(args) != 2 {
			return fault.New(fault.Invalid, "usage: vpnd config check FILE")
		}
		if _, err := os.Stat(args[1]); err != nil {
			return fault.Wrap(err, fault.NotFound, "cannot read configuration")
		}
		c, err := config.Load(args[1])
		if err != nil {
			return err
		}
		base, err := builtin(c, accounts{}, "/usr/sbin/vpnd")
		if err != nil {
			return err
		}
		if _, err := specs(base, servicesPath(args[1])); err != nil {
			return err
		}
		fmt.Printf("%s: ok\n", args[1])
		return nil
	case "services":
		return withConfig("config services", args[1:], printServices)
	}
	return fault.New(fault.Invalid, "unknown command \"config %s\"", args[0]).WithHint("'vpnd help' lists them")
}
