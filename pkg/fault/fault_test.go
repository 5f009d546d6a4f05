package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
)

func TestCodesSurviveWrappingAndTheWire(t *testing.T) {
	err := fmt.Errorf("find user: %w", fault.New(fault.NotFound, "no user %q", "bob").WithHint("look").WithRetryAfter(1500*time.Millisecond))
	if !errors.Is(err, fault.NotFound) || errors.Is(err, fault.Denied) {
		t.Errorf("wrapped: %v", err)
	}
	f := fault.From(err)
	data, merr := json.Marshal(fault.Problem{Status: f.Code.HTTPStatus(), Code: f.Code, Detail: f.Message, Hint: f.Hint, RetryAfter: fault.RetrySeconds(f.RetryAfter)})
	if merr != nil {
		t.Fatal(merr)
	}
	var p fault.Problem
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	back := p.Error()
	if !errors.Is(back, fault.NotFound) || back.Hint != "look" || back.RetryAfter != 2*time.Second {
		t.Errorf("back from the wire: %#v", back)
	}
}

func TestUnclassifiedErrorsAreInternal(t *testing.T) {
	for err, want := range map[error]fault.Code{
		errors.New("secret detail"): fault.Internal,
		context.DeadlineExceeded:    fault.Timeout,
		context.Canceled:            fault.Canceled,
		fault.Risk:                  fault.Risk,
	} {
		if got := fault.CodeOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	if fault.CodeOf(nil) != "" || fault.ExitStatus(nil) != 0 {
		t.Error("nil is an error")
	}
}

func TestWithMethodsDoNotChangeTheOriginal(t *testing.T) {
	base := fault.New(fault.Invalid, "x")
	_ = base.WithHint("h").WithReason("r").WithFields(fault.Field{Path: "p"})
	if base.Hint != "" || base.Reason != "" || base.Fields != nil {
		t.Errorf("changed: %#v", base)
	}
}

// TestTheManualShowsEveryCode keeps docs/errors.md true.
func TestTheManualShowsEveryCode(t *testing.T) {
	doc, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[fault.Code]bool{}
	for _, r := range fault.Table() {
		if seen[r.Code] {
			t.Errorf("%s is in the table twice", r.Code)
		}
		seen[r.Code] = true
		found := false
		for line := range strings.Lines(string(doc)) {
			if strings.HasPrefix(line, "|") && strings.Contains(line, "`"+string(r.Code)+"`") &&
				strings.Contains(line, fmt.Sprint(r.HTTP)) && strings.Contains(line, fmt.Sprintf("| %d |", r.Exit)) {
				found = true
			}
		}
		if !found {
			t.Errorf("docs/errors.md has no line with %s, %d and %d", r.Code, r.HTTP, r.Exit)
		}
	}
}
