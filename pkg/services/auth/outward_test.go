package auth

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"vpnd/pkg/fault"
)

func TestStrangersLearnNothingOfTheServersInside(t *testing.T) {
	a := &Auth{log: slog.New(slog.DiscardHandler)}
	try := func(err error) *fault.Error {
		_, got := outward(a, func(context.Context, *int) (*int, error) { return nil, err })(t.Context(), nil)
		return fault.From(got)
	}
	for _, err := range []error{
		fault.New(fault.Unavailable, "the disk that holds /var/lib/vpnd/auth/auth.db is full").WithReason("disk_full").WithHint("free space at /var/lib/vpnd/auth"),
		fault.New(fault.Unavailable, "keys is not reachable at /run/vpnd/keys.sock").WithReason("keys_not_ready").WithRetryAfter(time.Second),
		fault.New(fault.Timeout, "users at /run/vpnd did not answer in time"),
	} {
		got := try(err)
		want := fault.From(err)
		if strings.Contains(got.Message+got.Hint, "/") || got.Code != want.Code || got.Reason != want.Reason || got.RetryAfter != want.RetryAfter {
			t.Errorf("%v became %+v", err, got)
		}
	}
	for _, err := range []error{
		replayed(), suspended(), pending(errors.New("x"), "signed out, but not closed"), fault.New(fault.Exhausted, "all 5 devices"),
	} {
		if got := try(err); got.Message != fault.From(err).Message {
			t.Errorf("%v became %v", err, got)
		}
	}
}
