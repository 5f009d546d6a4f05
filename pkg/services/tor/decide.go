package tor

import (
	"fmt"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
)

// observation is what is known about tor now.
type observation struct {
	process   api.ProcessState
	why, hint string // about the process, when it does not run
	gateways  bool   // the lane has its addresses
	boot      api.Bootstrap
	dir       bool // enough directory information
	circuit   bool
	live      bool
	probe     probeState
}

// decision is what the lane shall be in.
type decision struct {
	state        lanes.TorState
	reason, hint string
}

// decide is the whole rule: up means that the wish is up and all is well.
func decide(w wish, o observation) decision {
	if w.Wish == api.WishDown {
		return decision{lanes.TorBlocked, clip(with("the operator took the lane down", w.Reason)), "vpnctl tor up"}
	}
	if w.Wish == api.WishMaintenance {
		reason := w.Message
		if reason == "" {
			reason = with("the operator put the lane into maintenance", w.Reason)
		}
		return decision{lanes.TorMaintenance, clip(reason), "vpnctl tor up"}
	}
	reason, hint := o.unwell(w)
	if reason == "" && !o.probe.good {
		reason = with("no test circuit was built yet", o.probe.last.Message)
		if o.probe.failed >= probeTries {
			reason = with("test circuits cannot be built", o.probe.last.Message)
		}
	}
	if reason != "" {
		return decision{lanes.TorMaintenance, clip(reason), hint}
	}
	return decision{state: lanes.TorUp}
}

// unwell tells what is wrong apart from the probe, or "".
func (o observation) unwell(w wish) (reason, hint string) {
	switch {
	case w.Process == processStop:
		return "tor is stopped by the operator", "vpnctl tor start"
	case o.process == api.ProcessMissing:
		return with("tor is not installed", o.why), o.hint
	case o.process == api.ProcessFailed:
		return with("tor is not running", o.why), o.hint
	case o.process == api.ProcessHung:
		return with("tor does not answer", o.why), o.hint
	case !o.gateways:
		return "lane tor's interface has no addresses yet", "vpnctl lane list"
	case o.process != api.ProcessRunning:
		return "tor is starting", ""
	case !o.live:
		return "tor finds the network down", "check the server's connection to the internet"
	case o.boot.Percent < 100:
		return with(fmt.Sprintf("tor is connecting, %d %%", o.boot.Percent), first(o.boot.Warning, o.boot.Summary)), ""
	case !o.dir:
		return "tor has not enough directory information", ""
	case !o.circuit:
		return "tor has no circuit", ""
	}
	return "", ""
}

func with(what, detail string) string {
	if detail == "" {
		return what
	}
	return what + ": " + detail
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// clip keeps a reason within what lanes takes.
func clip(s string) string {
	if r := []rune(s); len(r) > 500 {
		return string(r[:499]) + "…"
	}
	return s
}
