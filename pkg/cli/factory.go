package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// defaultHost is where vpnd listens.
const defaultHost = "unix:///run/vpnd/control.sock"

// factory gives commands what they need, when they need it.
type factory struct {
	streams
	args []string // as typed, for errors before the flags are understood

	host    string
	output  string
	quiet   bool
	noColor bool
	timeout time.Duration

	connection *rpc.Conn
	patience   time.Duration // of the connection
	cancel     context.CancelFunc
}

// globals declares the flags that every command has.
func (f *factory) globals(root *cobra.Command) {
	p := root.PersistentFlags()
	p.StringVar(&f.host, "host", defaultHost, "where vpnd is: unix:///PATH or ssh://[USER@]HOST[:PORT]")
	p.StringVarP(&f.output, "output", "o", "table", "how to print: "+strings.Join(outputs(), ", "))
	p.BoolVarP(&f.quiet, "quiet", "q", false, "print no notes, only data and errors")
	p.BoolVar(&f.noColor, "no-color", false, "print without colours")
	p.DurationVar(&f.timeout, "timeout", 0, "give up after this long (default: what each operation needs)")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs(), cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("host", cobra.FixedCompletions([]string{defaultHost, "ssh://root@"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
}

// envNames gives the environment variable of each global flag.
func envNames() map[string]string {
	return map[string]string{
		"host": "VPNCTL_HOST", "output": "VPNCTL_OUTPUT", "quiet": "VPNCTL_QUIET",
		"no-color": "VPNCTL_NO_COLOR", "timeout": "VPNCTL_TIMEOUT",
	}
}

// settle fills in the global flags that were not given from the environment.
func (f *factory) settle(cmd *cobra.Command) error {
	for _, name := range []string{"host", "output", "quiet", "no-color", "timeout"} {
		value := f.env(envNames()[name])
		flag := cmd.Root().PersistentFlags().Lookup(name)
		if value == "" || flag.Changed {
			continue
		}
		if err := flag.Value.Set(value); err != nil {
			return fault.New(fault.Invalid, "%s=%q: %v", envNames()[name], value, err).
				WithHint("it stands for --%s: %s", name, flag.Usage)
		}
	}
	if known := outputsOf(cmd); !slices.Contains(known, f.output) {
		return fault.New(fault.Invalid, "--output %q is not known", f.output).WithHint("use one of %s", strings.Join(known, ", "))
	}
	if f.timeout < 0 {
		return fault.New(fault.Invalid, "--timeout %s is negative", f.timeout)
	}
	return nil
}

// begin is what every command does first.
func (f *factory) begin(cmd *cobra.Command) error {
	if err := f.settle(cmd); err != nil {
		return err
	}
	if f.timeout > 0 {
		ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
		f.cancel = cancel
		cmd.SetContext(ctx)
	}
	return nil
}

func (f *factory) close() {
	if f.connection != nil {
		f.connection.CloseIdle()
	}
	if f.cancel != nil {
		f.cancel()
	}
}

// conn is the connection to vpnd, made when it is first asked for.
func (f *factory) conn() (*rpc.Conn, error) {
	if f.connection == nil {
		c, err := dial(f.host, rpc.Options{Patience: f.patience}, f.err)
		if err != nil {
			return nil, err
		}
		f.connection = c
	}
	return f.connection, nil
}

// call performs an operation of the control socket.
func call[Req, Resp any](ctx context.Context, f *factory, op rpc.Op[Req, Resp], req *Req) (*Resp, error) {
	conn, err := f.conn()
	if err != nil {
		return nil, err
	}
	return op.Call(ctx, conn, req)
}

// pages calls a list operation until limit items are there (0: all). set puts
// the page size and the cursor into the request.
func pages[Req, T any](ctx context.Context, f *factory, op rpc.Op[Req, rpc.List[T]], limit, pageMax int, req *Req, set func(r *Req, limit int, after string)) (*rpc.List[T], error) {
	out := &rpc.List[T]{Items: []T{}}
	after := ""
	for {
		size := pageMax
		if limit > 0 {
			size = min(pageMax, limit-len(out.Items))
		}
		set(req, size, after)
		page, err := call(ctx, f, op, req)
		if err != nil {
			return nil, err
		}
		out.Items, out.Total = append(out.Items, page.Items...), page.Total
		after = page.Next
		if after == "" || len(page.Items) == 0 || limit > 0 && len(out.Items) >= limit {
			out.Total = max(out.Total, len(out.Items))
			return out, nil
		}
	}
}

// note tells people something that is no data. Programs that read JSON get
// nothing but JSON.
func (f *factory) note(format string, args ...any) {
	if f.quiet || f.wantsJSON() || f.output == "yaml" {
		return
	}
	fmt.Fprintln(f.err, view.Clean(fmt.Sprintf(format, args...)))
}

// hint names the next command to type; only people at a terminal want it.
func (f *factory) hint(format string, args ...any) {
	if f.quiet || !f.errTTY || f.output != "table" && f.output != "wide" {
		return
	}
	fmt.Fprintln(f.err, f.errTheme().Paint("hint:", view.Notice)+" "+view.Clean(fmt.Sprintf(format, args...)))
}

func (f *factory) theme() view.Theme {
	return view.Theme{Color: f.outTTY && f.colorful(), Unicode: f.unicode()}
}

func (f *factory) errTheme() view.Theme {
	return view.Theme{Color: f.errTTY && f.colorful(), Unicode: f.unicode()}
}

func (f *factory) colorful() bool {
	return !f.noColor && f.env("NO_COLOR") == "" && f.env("TERM") != "dumb"
}

// unicode reads the locale as setlocale(3) does. Without one the terminal is
// taken for what nearly all are.
func (f *factory) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := f.env(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

// wantsJSON tells whether errors are to be objects, also when the flags could
// not be understood to the end.
func (f *factory) wantsJSON() bool {
	if f.output == "json" || f.output == "jsonl" {
		return true
	}
	for i, a := range f.args {
		switch {
		case a == "--":
			return false
		case a == "-ojson", a == "-ojsonl", a == "-o=json", a == "-o=jsonl", a == "--output=json", a == "--output=jsonl":
			return true
		case (a == "-o" || a == "--output") && i+1 < len(f.args) && (f.args[i+1] == "json" || f.args[i+1] == "jsonl"):
			return true
		}
	}
	return false
}
