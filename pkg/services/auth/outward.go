package auth

import (
	"context"

	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// outward wraps an operation whose answer goes to the internet. That something
// does not work right now is all a stranger may know: what exactly, with the
// names of services and files, is for the log.
func outward[Req, Resp any](a *Auth, h func(context.Context, *Req) (*Resp, error)) func(context.Context, *Req) (*Resp, error) {
	return func(ctx context.Context, req *Req) (*Resp, error) {
		resp, err := h(ctx, req)
		if err == nil {
			return resp, nil
		}
		f := fault.From(err)
		if f.Code != fault.Unavailable && f.Code != fault.Timeout || f.Reason == reasonPending || f.Reason == reasonChanged {
			return nil, err
		}
		a.log.WarnContext(ctx, "auth.unavailable", "err", err, "reason", f.Reason, "request_id", rpc.RequestID(ctx))
		return nil, fault.Wrap(err, f.Code, "the server cannot sign anybody in or out right now").
			WithReason(f.Reason).WithRetryAfter(f.RetryAfter).WithHint("try again in a moment")
	}
}
