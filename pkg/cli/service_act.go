package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"vpnd/pkg/api/supervisor"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/view"
)

// serviceActOptions are those of start, stop and restart.
type serviceActOptions struct {
	dryRun  bool
	wait    bool
	consent consent
}

// serviceAct is what is to be done to services.
type serviceAct struct {
	op      rpc.Op[supervisor.Ref, supervisor.Service]
	verb    string
	up      bool // the service should run afterwards
	needed  func(supervisor.Service) bool
	risks   map[string]string // of locking somebody out, by service
	effects map[string]string // that are no risk but good to know, by service
}

func waitFlag(cmd *cobra.Command, wait *bool) {
	cmd.Flags().BoolVar(wait, "wait", false, "wait until ready, as long as --timeout says (default 60s)")
}

func isUp(state string) bool { return state == "ready" || state == "running" }

func actOnServices(ctx context.Context, f *factory, o *serviceActOptions, args []string, act serviceAct) error {
	names, err := f.names(args)
	if err != nil {
		return err
	}
	if o.dryRun {
		steps, err := each(ctx, names, func(ctx context.Context, name string) (step, error) {
			s, err := getService(f)(ctx, name)
			st := step{Action: act.verb, Kind: "service", Name: s.Name, Change: err == nil && act.needed(s), Detail: "is " + s.State}
			if why, risky := act.risks[s.Name]; risky {
				st.Risks, st.Detail = []string{string(lockOut)}, st.Detail+"; "+why
			}
			if what, ok := act.effects[s.Name]; ok && st.Change {
				st.Detail += "; " + what
			}
			return st, err
		})
		return f.printPlan(steps, err)
	}
	for _, name := range names {
		if why, risky := act.risks[name]; risky {
			q := question{what: act.verb + " service " + name, risks: map[risk]string{lockOut: why}, typed: name}
			if err := f.agree(o.consent, q); err != nil {
				return err
			}
		}
	}
	items, err := each(ctx, names, func(ctx context.Context, name string) (supervisor.Service, error) {
		s, err := call(ctx, f, act.op, &supervisor.Ref{Service: name})
		if err != nil {
			return supervisor.Service{}, err
		}
		if act.up && o.wait && !isUp(s.State) {
			return waitForService(ctx, f, name)
		}
		return *s, nil
	})
	if perr := printChanged(f, view.Services(), len(names), items); perr != nil {
		return perr
	}
	for _, s := range items {
		if what, ok := act.effects[s.Name]; ok {
			f.note("%s: %s", s.Name, what)
		}
	}
	if err == nil && act.up {
		err = firstBroken(items)
	}
	return err
}

// firstBroken makes a service that did not come up an error: the operation
// was carried out, and the result is bad.
func firstBroken(items []supervisor.Service) error {
	for _, s := range items {
		switch s.State {
		case "failed", "unhealthy", "backoff", "stopped":
			why := ""
			if s.Reason != "" {
				why = ": " + s.Reason
			}
			return fault.New(fault.Unhealthy, "service %s is %s%s", s.Name, s.State, why).WithHint("vpnctl service get %s", s.Name)
		}
	}
	return nil
}

// waitForService polls until the service is up.
func waitForService(ctx context.Context, f *factory, name string) (supervisor.Service, error) {
	last := supervisor.Service{Name: name}
	err := f.until(ctx, fmt.Sprintf("service %s is not ready", name), "vpnctl service get "+name, func(ctx context.Context) (bool, string, error) {
		s, err := getService(f)(ctx, name)
		if err != nil {
			return false, "", err
		}
		last = s
		return isUp(s.State), s.State, nil
	})
	return last, err
}

// defaultWait bounds waiting where --timeout says nothing.
const defaultWait = time.Minute
