package cli

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
)

const rootLong = `vpnctl controls vpnd, a VPN server, from a terminal or a script.

Things are named the same way everywhere: alice, alice/laptop, an id, or the
beginning of an id; - reads names from standard input. Every command that
prints data takes -o table, wide, json, jsonl, yaml or name.`

const rootExample = `  vpnctl status                              one screen of everything
  vpnctl user create alice                   a new user; asks for the password
  vpnctl session list -w                     who is connected, live
  vpnctl session kill alice/laptop           end one connection
  vpnctl wait session/alice=online           for scripts
  vpnctl --host ssh://root@vps status        the same from elsewhere`

// newRoot makes the whole tree. more are commands of other packages.
func newRoot(f *factory, more ...*cobra.Command) *cobra.Command {
	root := newNoun("vpnctl", nil, "Control vpnd, a VPN server",
		newStatus(f),
		newNoun("service", []string{"services", "svc"}, "The processes of vpnd",
			newServiceList(f), newServiceGet(f), newServiceStart(f), newServiceStop(f), newServiceRestart(f), newServiceReload(f), newServiceLogs(f)),
		newNoun("user", []string{"users"}, "The accounts",
			newUserCreate(f), newUserList(f), newUserGet(f), newUserSet(f), newUserPasswd(f),
			newUserSuspend(f), newUserActivate(f), newUserDelete(f), newUserLogs(f)),
		newNoun("device", []string{"devices"}, "The users' devices",
			newDeviceList(f), newDeviceGet(f), newDeviceDelete(f)),
		newNoun("session", []string{"sessions"}, "Who is and was connected",
			newSessionList(f), newSessionGet(f), newSessionKill(f), newSessionHistory(f), newSessionLogs(f)),
		newNoun("ipam", nil, "The address pools and leases",
			newIPAMStatus(f), newIPAMList(f), newIPAMRelease(f)),
		newNoun("lane", []string{"lanes"}, "The ways out: vpn and tor",
			newLaneList(f), newLaneGet(f), newLaneUp(f), newLaneDown(f)),
		newNoun("tor", nil, "Tor, which lane tor goes through",
			newTorStatus(f), newTorUp(f), newTorDown(f), newTorMaintenance(f), newTorStart(f), newTorStop(f), newTorBootstrap(f),
			newTorCheck(f), newTorEvents(f), newTorNewID(f), newTorCircuit(f), newTorStream(f), newTorExit(f),
			newTorRelay(f), newTorBridge(f), newTorIsolation(f), newTorOnion(f)),
		newLeakTest(f),
		newLogs(f),
		newEvents(f),
		newNoun("audit", nil, "Who changed what", newAuditList(f)),
		newWait(f),
		newVersion(f),
		newCompletion(),
		newProxy(f),
		newMan(),
	)
	root.Long, root.Example = rootLong, rootExample
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmd.ValidateFlagGroups(); err != nil { // cobra's own error says nothing of its kind
			return flagGroupError(cmd, err)
		}
		return f.begin(cmd)
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.New(fault.Invalid, "%s", err).WithHint("'%s --help' lists the flags", cmd.CommandPath())
	})
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", ".FlagUsagesWrapped 80 "))
	f.globals(root)
	root.AddCommand(more...)
	return root
}

// flagGroupError says in our words which flags belong together. cobra names
// the group in brackets first, and then the flags of it that were set.
func flagGroupError(cmd *cobra.Command, err error) error {
	groups := flagGroups.FindAllStringSubmatch(err.Error(), -1)
	if len(groups) == 0 {
		return usageError(cmd, "%s", err)
	}
	flags := strings.Fields(groups[len(groups)-1][1])
	for i := range flags {
		flags[i] = "--" + flags[i]
	}
	if len(groups) == 1 {
		return usageError(cmd, "one of %s is needed", strings.Join(flags, ", "))
	}
	return usageError(cmd, "%s exclude each other", strings.Join(flags, " and "))
}

var flagGroups = regexp.MustCompile(`\[([^]]*)\]`)

// newNoun makes a command that only holds others.
func newNoun(use string, aliases []string, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Aliases: aliases, Short: short, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(subs...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, word string) error {
	err := fault.New(fault.Invalid, "%s has no command %q", cmd.CommandPath(), word)
	if found := suggestions(cmd, word); len(found) > 0 {
		return err.WithHint("did you mean '%s %s'?", cmd.CommandPath(), strings.Join(found, "' or '"+cmd.CommandPath()+" "))
	}
	return err.WithHint("'%s --help' lists the commands", cmd.CommandPath())
}

// suggestions are the nearest words; those that begin alike are nearer.
func suggestions(cmd *cobra.Command, word string) []string {
	if word == "" {
		return nil
	}
	for distance := 1; distance <= 2; distance++ {
		cmd.SuggestionsMinimumDistance = distance
		found := cmd.SuggestionsFor(word)
		alike := slices.DeleteFunc(slices.Clone(found), func(s string) bool { return s[:1] != word[:1] })
		switch {
		case len(alike) > 0:
			return alike
		case len(found) > 0:
			return found
		}
	}
	return nil
}
