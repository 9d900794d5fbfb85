package sdk

import (
	"context"
	"fmt"
	"math"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

// Deregister removes a member, whichever process registered it; that process ends
// its registration at the next heartbeat. If there is no such member, it succeeds
// with removed false. A service removes itself with Registration.Close.
func (c *Client) Deregister(ctx context.Context, group, id string) (removed bool, err error) {
	req := &registrypb.DeregisterRequest{Group: group, Id: id}
	if err := c.ready("deregister", req); err != nil {
		return false, err
	}
	return c.deregister(ctx, req)
}

func (c *Client) deregister(ctx context.Context, req *registrypb.DeregisterRequest) (bool, error) {
	resp, err := write(ctx, c, "deregister", req, plain(registrypb.RegistryClient.Deregister))
	return resp.GetRemoved(), err
}

// SetGroup creates a group or changes its ring's parameters, and returns the
// group's revision after that.
func (c *Client) SetGroup(ctx context.Context, s SetGroup) (revision uint64, err error) {
	if err := fits("set group", "virtual nodes", s.VirtualNodes); err != nil {
		return 0, err
	}
	if err := fits("set group", "bound", s.Bound); err != nil {
		return 0, err
	}
	req := &registrypb.SetGroupRequest{
		Group:            s.Group,
		Config:           &registrypb.GroupConfig{VirtualNodes: uint32(s.VirtualNodes), Bound: uint32(s.Bound)},
		ExpectedRevision: s.ExpectedRevision,
	}
	if err := c.ready("set group", req); err != nil {
		return 0, err
	}
	resp, err := write(ctx, c, "set group", req, plain(registrypb.RegistryClient.SetGroup))
	return resp.GetRevision(), err
}

// DeleteGroup removes a group; without one it is ErrUnknownGroup. A group with
// members is ErrGroupNotEmpty, unless the deletion is forced: then at most 1,000
// members are removed, and their processes end their registrations at the next
// heartbeat. It returns the number of members. If the group is created again, it has
// revisions above the earlier ones.
func (c *Client) DeleteGroup(ctx context.Context, group string, d GroupDeletion) (members int, err error) {
	req := &registrypb.DeleteGroupRequest{Group: group, Force: d.Force, ExpectedRevision: d.ExpectedRevision}
	if err := c.ready("delete group", req); err != nil {
		return 0, err
	}
	resp, err := write(ctx, c, "delete group", req, plain(registrypb.RegistryClient.DeleteGroup))
	return int(resp.GetMembers()), err
}

// AcceptLoss removes at once the silent members of a group that the mass-loss guard
// holds; it returns their number.
func (c *Client) AcceptLoss(ctx context.Context, group string) (silent int, err error) {
	req := &registrypb.AcceptLossRequest{Group: group}
	if err := c.ready("accept loss", req); err != nil {
		return 0, err
	}
	var resp *registrypb.AcceptLossResponse
	err = c.do(ctx, "accept loss", writeKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.registry().AcceptLoss(ctx, req, a.opts...)
		return err
	})
	return int(resp.GetSilent()), err
}

// UpdateMember changes a member's weight or state without its process, and returns
// the group's revision after that. A weight lasts until the process registers again,
// a state until another process registers the id. A process changes its own state
// with Registration.Drain and Hold.
func (c *Client) UpdateMember(ctx context.Context, group, id string, u MemberUpdate) (revision uint64, err error) {
	return c.updateMember(ctx, "update member", group, id, u, nil)
}

// updateMember makes the change; with an instance, only if the member is that one's.
func (c *Client) updateMember(ctx context.Context, op, group, id string, u MemberUpdate, instance []byte) (revision uint64, err error) {
	req := &registrypb.UpdateMemberRequest{Group: group, Id: id, Instance: instance}
	if u.Weight != nil {
		if err := fits(op, "weight", *u.Weight); err != nil {
			return 0, err
		}
		w := uint32(*u.Weight)
		req.Weight = &w
	}
	if u.State != nil {
		req.State = stateToProto(*u.State).Enum()
	}
	if u.Hold != 0 {
		req.Hold = durationpb.New(u.Hold)
	}
	if err := c.ready(op, req); err != nil {
		return 0, err
	}
	resp, err := write(ctx, c, op, req, plain(registrypb.RegistryClient.UpdateMember))
	return resp.GetRevision(), err
}

// Status returns the status of every node, with a group also the fingerprint of its
// ring.
func (c *Client) Status(ctx context.Context, group string) (Status, error) {
	if err := c.ready("status", &registrypb.StatusRequest{Group: group}); err != nil {
		return Status{}, err
	}
	resp, err := c.status(ctx, "status", group)
	if err != nil {
		return Status{}, err
	}
	return statusFromProto(resp), nil
}

func (c *Client) status(ctx context.Context, op, group string) (resp *registrypb.StatusResponse, err error) {
	err = c.do(ctx, op, statusKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.cluster().Status(ctx, &registrypb.StatusRequest{Group: group}, a.opts...)
		return err
	})
	return resp, err
}

// Join adds the running, empty node at that bind address to the cluster and returns
// its id. Like Remove and Transfer it is not repeated once it may have taken effect:
// after ErrOutcomeUnknown, Status shows the outcome.
func (c *Client) Join(ctx context.Context, bind string, nonvoter bool) (id string, err error) {
	req := &registrypb.JoinRequest{Bind: bind, Nonvoter: nonvoter}
	if err := c.ready("join", req); err != nil {
		return "", err
	}
	var resp *registrypb.JoinResponse
	err = c.do(ctx, "join", onceKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.cluster().Join(ctx, req, a.opts...)
		return err
	})
	return resp.GetId(), err
}

// Remove removes a node from the cluster permanently.
func (c *Client) Remove(ctx context.Context, id string) error {
	req := &registrypb.RemoveRequest{Id: id}
	if err := c.ready("remove", req); err != nil {
		return err
	}
	return c.do(ctx, "remove", onceKind, func(ctx context.Context, a *attempt) error {
		_, err := a.cluster().Remove(ctx, req, a.opts...)
		return err
	})
}

// Transfer moves leadership to that voter, or without an id to the one with the
// longest log, and returns the new leader's id.
func (c *Client) Transfer(ctx context.Context, id string) (leader string, err error) {
	req := &registrypb.TransferRequest{Id: id}
	if err := c.ready("transfer", req); err != nil {
		return "", err
	}
	var resp *registrypb.TransferResponse
	err = c.do(ctx, "transfer", onceKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.cluster().Transfer(ctx, req, a.opts...)
		return err
	})
	return resp.GetLeader(), err
}

// RaiseFeatureLevel raises the cluster's feature level to the newest that its leader
// supports, and returns the cluster's level. Nodes of earlier versions are refused from
// then on: there is no way back. While a node does not support the level or does not
// answer, it is ErrFeatureLevel.
func (c *Client) RaiseFeatureLevel(ctx context.Context) (level int, err error) {
	req := &registrypb.RaiseFeatureLevelRequest{}
	if err := c.ready("raise feature level", req); err != nil {
		return 0, err
	}
	var resp *registrypb.RaiseFeatureLevelResponse
	err = c.do(ctx, "raise feature level", writeKind, func(ctx context.Context, a *attempt) (err error) {
		resp, err = a.cluster().RaiseFeatureLevel(ctx, req, a.opts...)
		return err
	})
	return int(resp.GetLevel()), err
}

// fits refuses a number that the message cannot represent; the server checks the
// limits.
func fits(op, field string, n int) error {
	if n < 0 || n > math.MaxInt32 {
		return invalid(op, field, "a positive number", fmt.Sprintf("%s %d is out of range", field, n))
	}
	return nil
}
