package cli

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
)

const logsPageName = "vpnctl-logs"

const logsManAbout = `Every service of vpnd writes structured lines into files. The service logs
takes them in as they appear, keeps them for as long as logs.max_age and
logs.max_size_mib say, and answers questions about them.

Questions are asked in one small language, the same for every command here.
Lines are shown the newest at the bottom; standard output carries data alone,
and notes go to standard error. Text from lines is shown harmless: what a
terminal would obey is written as \x1b, \u202e and the like.`

// logsManTerms is the language in short; docs/logs.md has all of it.
func logsManTerms() [][2]string {
	return [][2]string{
		{"service=auth", "lines whose service is exactly auth; upper and lower case differ"},
		{"user=alice,bob", "of either user"},
		{"device=phone-*", "whose device begins with phone-"},
		{"session=*", "that have a session at all"},
		{"!event=ping", "with another event or none; the same as event!=ping"},
		{"peer.ip=10.8.0.7", "with this ip inside the object peer"},
		{"dur_ms>200", "whose dur_ms is a number above 200; also >=, <, <="},
		{"level>=warn", "as grave or graver: trace, debug, info, warn, error, fatal"},
		{"refused", "with this word in the message, the event, an id or a field; case does not matter"},
		{"refus*", "with a word that begins so"},
		{`"sign-in refused"`, "with these words in this order within one value"},
		{"!refused", "without the word; ! or - before any term but a time"},
		{`"odd key"="a, b"`, "quotes for names and values with spaces or signs"},
		{"since=1h30m until=10m", "from 90 to 10 minutes ago; units s, m, h, d, w"},
		{`since="yesterday 21:00"`, "also today, 21:30, 2026-01-31, RFC 3339; UTC without a zone"},
		{"time=yesterday", "all of that day"},
	}
}

// logsManual is the page of logs and all that belongs to it.
func logsManual(root *cobra.Command) string {
	find := func(words ...string) *cobra.Command {
		cmd, _, _ := root.Find(words) // the tree is ours: it is there
		return cmd
	}
	main := find("logs")
	all := slices.Concat([]*cobra.Command{main}, leavesOf(main), []*cobra.Command{find("service", "logs"), find("session", "logs"), find("user", "logs")})

	r := &roff{}
	r.b.WriteString(".\\\" Made by 'make generate' from the commands themselves.\n")
	r.macro("TH", strings.ToUpper(logsPageName), "1", "", "vpnd", "vpnd manual")
	r.macro("SH", "NAME")
	r.text(logsPageName + " - find any log line of vpnd, and show new ones as they come")
	r.macro("SH", "SYNOPSIS")
	r.macro("nf")
	for _, cmd := range all {
		r.text(synopsis(cmd))
	}
	r.macro("fi")
	r.macro("SH", "DESCRIPTION")
	r.prose(logsManAbout)
	r.macro("SH", "QUERIES")
	r.prose("A query is terms with spaces between, and all of them must hold. An empty query\nis every line. Quote it for the shell. A mistake is pointed at with its column.")
	for _, t := range logsManTerms() {
		r.tagged(t[0], t[1])
	}
	r.macro("SH", "COMMANDS")
	for _, cmd := range all {
		r.command(cmd)
	}
	r.macro("SH", "OPTIONS OF COMMANDS WITH A QUERY")
	r.flags(timeFlags(main))
	r.macro("SH", "OPTIONS OF EVERY COMMAND")
	r.flags(root.PersistentFlags().FlagUsagesWrapped(0))
	r.macro("SH", "EXAMPLES")
	for _, cmd := range all {
		if cmd.Example == "" {
			continue
		}
		r.macro("SS", strings.TrimPrefix(cmd.CommandPath(), root.Name()+" "))
		r.verbatim(strings.Split(strings.ReplaceAll(cmd.Example, "\n  ", "\n")[2:], "\n"))
	}
	r.exits()
	r.macro("SH", "ENVIRONMENT")
	for _, flag := range []string{"host", "output", "quiet", "no-color", "timeout"} {
		r.tagged(envNames()[flag], "stands for --"+flag)
	}
	r.tagged("NO_COLOR", "when it is not empty, nothing is coloured")
	r.macro("SH", "SEE ALSO")
	r.text("docs/logs.md of the source: the whole language, and running the service;")
	r.text("'vpnctl COMMAND --help'.")
	return r.b.String()
}

func synopsis(cmd *cobra.Command) string {
	return strings.TrimSpace(strings.TrimSuffix(cmd.UseLine(), "[flags]"))
}

// leavesOf are the commands below one, those that only hold others left out.
func leavesOf(cmd *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, sub := range cmd.Commands() {
		switch {
		case sub.Hidden:
		case sub.HasSubCommands():
			out = append(out, leavesOf(sub)...)
		default:
			out = append(out, sub)
		}
	}
	return out
}

func (r *roff) command(cmd *cobra.Command) {
	r.macro("SS", synopsis(cmd))
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	r.prose(about)
	own := cmd.LocalNonPersistentFlags().FlagUsagesWrapped(0)
	for line := range strings.Lines(timeFlags(cmd)) {
		own = strings.Replace(own, line, "", 1)
	}
	r.flags(own)
}

// timeFlags are those lines of the help that nearly every command has.
func timeFlags(cmd *cobra.Command) string {
	var out strings.Builder
	for line := range strings.Lines(cmd.LocalNonPersistentFlags().FlagUsagesWrapped(0)) {
		if flag, _, _ := strings.Cut(strings.TrimSpace(line), " "); flag == "--since" || flag == "--until" || flag == "--utc" {
			out.WriteString(line)
		}
	}
	return out.String()
}

// flags writes what the help says of flags, a line each.
func (r *roff) flags(usages string) {
	for line := range strings.Lines(usages) {
		flag, what, _ := strings.Cut(strings.TrimSpace(line), "   ")
		if flag != "" && !strings.HasPrefix(flag, "-h, --help") {
			r.tagged(flag, strings.TrimSpace(what))
		}
	}
}

func (r *roff) exits() {
	r.macro("SH", "EXIT STATUS")
	r.tagged("0", "done; a query that finds nothing is no error")
	said := map[int]bool{}
	for _, row := range fault.Table() {
		if !said[row.Exit] {
			said[row.Exit] = true
			r.tagged(strconv.Itoa(row.Exit), row.Meaning)
		}
	}
}
