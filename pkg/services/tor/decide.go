package tor

import (
	"fmt"
	"strings"
	"time"

	"vpnd/pkg/api/lanes"
	api "vpnd/pkg/api/tor"
)

// observation is what is known about tor now.
type observation struct {
	process   api.ProcessState
	why, hint string // about the process, when it does not run
	gateways  bool   // the lane has its addresses
	bridges   bool   // tor runs with bridges
	boot      api.Bootstrap
	dir       bool // enough directory information
	circuit   bool
	live      bool
	probe     probeState
	skew      time.Duration // of this host's clock, as relays say; negative: it is late
	relays    bool          // known as far as they are needed
	refused   string        // why tor did not take its configuration
}

// decision is what the lane shall be in.
type decision struct {
	state        lanes.TorState
	reason, hint string
}

// decide is the whole rule: up means that the wish is up and all is well.
func decide(w wish, o observation) decision {
	if w.Wish == api.WishDown {
		return decision{lanes.TorBlocked, clip(with("the operator took the lane down", w.Reason)), w.hint()}
	}
	if w.Wish == api.WishMaintenance {
		reason := w.Message
		if reason == "" {
			reason = with("the operator put the lane into maintenance", w.Reason)
		}
		return decision{lanes.TorMaintenance, clip(reason), w.hint()}
	}
	reason, hint := o.unwell(w)
	if reason == "" && !o.probe.good {
		reason = with("no test circuit was built yet", o.probe.last.Message)
		if o.probe.failed >= probeTries {
			reason, hint = with("test circuits cannot be built"+o.through(), o.probe.last.Message), o.bridgeHint("")
		}
	}
	if reason != "" {
		return decision{lanes.TorMaintenance, clip(reason), hint}
	}
	return decision{state: lanes.TorUp}
}

// hint is how the operator takes the wish back.
func (w wish) hint() string {
	if w.Process == processStop {
		return "vpnctl tor start, and then vpnctl tor up"
	}
	return "vpnctl tor up"
}

// absent tells why no tor can be asked anything, or "".
func (o observation) absent(w wish) (reason, hint string) {
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
	}
	return "", ""
}

// unwell tells what is wrong apart from the probe, or "".
func (o observation) unwell(w wish) (reason, hint string) {
	if reason, hint := o.absent(w); reason != "" {
		return reason, hint
	}
	switch {
	case o.refused != "":
		return with("tor does not take its configuration", o.refused), "look at tor.extra_torrc and 'vpnctl tor bridge list'"
	case o.boot.Percent < 100:
		reason = with(fmt.Sprintf("tor is connecting%s, %d %%", o.through(), o.boot.Percent), first(o.boot.Warning, o.boot.Summary))
		switch {
		case o.skewed():
			return reason, "this host's clock seems wrong: see 'timedatectl'"
		case o.boot.Warning != "" || o.boot.Percent > 0 && !o.live:
			return reason, o.bridgeHint("check the server's connection to the internet")
		}
		return reason, ""
	case !o.live:
		return "tor finds the network down" + o.through(), o.bridgeHint("check the server's connection to the internet")
	case o.skewed() && !o.dir:
		return fmt.Sprintf("this host's clock seems %s off, and tor has not enough directory information", o.skew.Abs()), "see 'timedatectl'"
	case !o.relays:
		return "the relays for the exit choices are not known yet", ""
	case !o.dir:
		return "tor has not enough directory information" + o.through(), o.bridgeHint("")
	case !o.circuit:
		return "tor has no circuit" + o.through(), o.bridgeHint("")
	}
	return "", ""
}

// through names the bridges where tor has no other way.
func (o observation) through() string {
	if o.bridges {
		return " through bridges"
	}
	return ""
}

// bridgeHint is a hint for when tor gets nowhere: at the bridges, if it has any.
func (o observation) bridgeHint(without string) string {
	if o.bridges {
		return "see 'vpnctl tor bridge list', and try each with 'vpnctl tor bridge test ID'"
	}
	return without
}

// skewed says that the clock may be why tor gets nowhere: tor takes a consensus
// that is hours off, and relays' certificates some more.
func (o observation) skewed() bool {
	return o.skew.Abs() > time.Hour || strings.Contains(strings.ToLower(o.boot.Warning), "clock skew")
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
