package cli

import (
	"context"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/lanes"
	"vpnd/pkg/fault"
)

func newLaneUp(f *factory) *cobra.Command {
	o := &torActOptions{}
	cmd := &cobra.Command{
		Use: "up tor", Short: "Bring lane tor up, as 'vpnctl tor up' does", Args: oneOrMore("lane"), ValidArgsFunction: f.complete(switchableLanes),
		RunE: func(cmd *cobra.Command, args []string) error { return runLaneUp(cmd.Context(), f, o, args) },
	}
	torUpFlags(cmd, o)
	return cmd
}

func runLaneUp(ctx context.Context, f *factory, o *torActOptions, args []string) error {
	if err := f.onlyTor(args); err != nil {
		return err
	}
	return runTorUp(ctx, f, o)
}

// onlyTor refuses lanes that cannot be switched.
func (f *factory) onlyTor(args []string) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	for _, name := range names {
		switch name {
		case string(lanes.Tor):
		case string(lanes.VPN):
			return fault.New(fault.Invalid, "only lane tor can be switched, not lane %s", name).WithHint("vpnctl lane get %s", name)
		default:
			return noLane(name)
		}
	}
	if len(names) == 0 {
		return fault.New(fault.Invalid, "which lane? none was named")
	}
	return nil
}

func switchableLanes(context.Context, *factory) []cobra.Completion {
	return []cobra.Completion{string(lanes.Tor)}
}
