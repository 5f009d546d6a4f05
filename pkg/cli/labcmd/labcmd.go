//go:build linux

// Package labcmd is `vpnctl lab`: a whole VPN in network namespaces, to try
// vpnd without touching a host. It owns the subcommands; worlds are pkg/lab's
// and the story is pkg/demo's.
package labcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/demo"
	"vpnd/pkg/fault"
	"vpnd/pkg/lab"
	"vpnd/pkg/lab/site"
	"vpnd/pkg/lab/tornet"
)

// New makes `lab` with its subcommands.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Try vpnd in network namespaces of its own",
		Long: `A server, clients and an internet in network namespaces. Needs root; nothing of
this machine's own network or files is touched, and "lab down" removes everything.`,
	}
	cmd.AddCommand(newUp(), newStatus(), newExec(), newDown(), newDemo(), newTargets())
	return cmd
}

// words is the argument rule of commands that take so many words; most < 0 is
// any number.
func words(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var err *fault.Error
		switch {
		case len(args) < least:
			err = fault.New(fault.Invalid, "too few words: '%s' is wanted", cmd.UseLine())
		case most >= 0 && len(args) > most:
			err = fault.New(fault.Invalid, "%q is one word too many", args[most])
		default:
			return nil
		}
		return err.WithHint("'%s --help' tells more", cmd.CommandPath())
	}
}

// binDir is where vpnd and vpn are expected: beside this program.
func binDir() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Dir(self), nil
}

func targetCommand() []string {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return []string{self, "lab", "targets"}
}

func newUp() *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build a lab and start vpnd in it",
		Args:  words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runUp(cmd.Context(), cmd, o)
		},
	}
	cmd.Flags().IntVar(&o.clients, "clients", 2, "client machines")
	cmd.Flags().StringVar(&o.id, "id", "", "name of the lab; default: a random one")
	cmd.Flags().BoolVar(&o.tor, "tor", false, "with a private Tor network, exits in de and nl, for lane tor")
	return cmd
}

type upOptions struct {
	id      string
	clients int
	tor     bool
}

func runUp(ctx context.Context, cmd *cobra.Command, o upOptions) (err error) {
	bin, err := binDir()
	if err != nil {
		return err
	}
	l, err := lab.New(ctx, lab.Options{ID: o.id, Clients: o.clients, TargetCommand: targetCommand()})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			_ = l.Close(clean)
		}
	}()
	s, err := site.New(l, bin)
	if err != nil {
		return err
	}
	config := s.Config()
	var network *tornet.Network
	if o.tor {
		if network, err = tornet.Start(ctx, l); err != nil {
			return err
		}
		config += site.TorConfig(network)
	}
	if err := s.WriteConfig(config); err != nil {
		return err
	}
	if _, err := s.Start(); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := s.WaitReady(wait); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), l.ID())
	if network != nil {
		tellTor(cmd.ErrOrStderr(), network)
	}
	hint := func(command string) {
		fmt.Fprintf(cmd.ErrOrStderr(), "hint: %s lab exec %s server -- %s\n", os.Args[0], l.ID(), command)
	}
	if network != nil {
		hint("vpnctl wait tor=up --timeout 60s")
	}
	hint("vpnctl status")
	return nil
}

// tellTor says what there is to try in lane tor.
func tellTor(w io.Writer, n *tornet.Network) {
	for _, e := range n.Exits() {
		fmt.Fprintf(w, "tor exit: %s %s %s\n", e.Country, e.V4, e.V6)
	}
	fmt.Fprintf(w, "tor onion: %s\n", n.Onion())
	for _, host := range []string{lab.TargetV4.String(), "[" + lab.TargetV6.String() + "]", "target.test", n.Onion()} {
		fmt.Fprintf(w, "tor target: http://%s/ip\n", host)
	}
}

func newStatus() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status [ID]",
		Short: "List labs and their machines",
		Args:  words(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := lab.List()
			if err != nil {
				return err
			}
			shown := make([]lab.Info, 0, len(all))
			for _, l := range all {
				if len(args) == 0 || l.ID == args[0] {
					shown = append(shown, l)
				}
			}
			if len(args) == 1 && len(shown) == 0 {
				return noLab(args[0])
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(map[string]any{"items": shown, "total": len(shown)})
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "LAB\tMACHINE\tADDRESSES")
			for _, l := range shown {
				for _, m := range l.Machines {
					fmt.Fprintf(w, "%s\t%s\t%s\n", l.ID, m.Name, strings.Trim(fmt.Sprint(m.Addresses), "[]"))
				}
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func noLab(id string) error {
	return fault.New(fault.NotFound, "no lab %q", id).WithHint("'vpnctl lab status' lists them")
}

func newExec() *cobra.Command {
	return &cobra.Command{
		Use:   "exec ID MACHINE [-- COMMAND [ARG...]]",
		Short: "Run a command on a machine of a lab; a shell by default",
		Args:  words(2, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(args[0])
			if err != nil {
				return err
			}
			m := l.Machine(args[1])
			if m == nil {
				return fault.New(fault.NotFound, "lab %s has no machine %q", args[0], args[1]).WithHint("it has %v", l.Names())
			}
			bin, err := binDir()
			if err != nil {
				return err
			}
			if err := os.Setenv("PATH", bin+":"+os.Getenv("PATH")); err != nil {
				return err
			}
			command := args[2:]
			if len(command) == 0 {
				command = []string{"/bin/sh"}
			}
			return m.Exec(command[0], command[1:]...)
		},
	}
}

func newDown() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down [ID...]",
		Short: "Remove labs with everything in them",
		RunE: func(cmd *cobra.Command, args []string) error {
			infos, err := lab.List()
			if err != nil {
				return err
			}
			var ids []string
			for _, i := range infos {
				ids = append(ids, i.ID)
			}
			if all {
				args = ids
			} else if len(args) == 0 {
				return fault.New(fault.Invalid, "which lab?").WithHint("'vpnctl lab status' lists them; --all removes all")
			}
			for _, id := range args {
				if !slices.Contains(ids, id) {
					return noLab(id)
				}
			}
			for _, id := range args {
				if err := lab.Remove(cmd.Context(), id); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every lab of this machine")
	return cmd
}

func newDemo() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play the first day of an operator and three devices",
		Args:  words(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			bin, err := binDir()
			if err != nil {
				return err
			}
			st, err := os.Stdout.Stat()
			terminal := err == nil && st.Mode()&os.ModeCharDevice != 0
			return demo.Run(cmd.Context(), demo.Options{
				Bin: bin, Targets: targetCommand(), Keep: keep, Out: cmd.OutOrStdout(),
				Color: terminal && os.Getenv("NO_COLOR") == "",
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the lab up and say what to type next")
	return cmd
}

// newTargets is what a lab starts to serve its internet; the machine is
// entered already.
func newTargets() *cobra.Command {
	return &cobra.Command{
		Use:    "targets ID",
		Hidden: true,
		Args:   words(1, 1),
		RunE:   func(cmd *cobra.Command, _ []string) error { return lab.ServeTargets(cmd.Context(), nil) },
	}
}
