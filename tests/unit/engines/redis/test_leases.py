"""Which nodes live: times in ms, with a life of 20 s and a patience of 10."""

from chatroom.engines.redis.leases import Leases

SECOND = 1000


def leases() -> Leases:
    return Leases("me", 20, 10)


def test_who_holds_a_lease_lives() -> None:
    mine = leases()
    mine.renewed(0, False, [("me a", 20 * SECOND), ("you b c", 15 * SECOND)])
    assert mine.others == {"you": "b c"}
    assert list(mine.dead(["you", "me"])) == []


def test_after_a_whole_life_of_ones_own_who_has_no_lease_is_dead() -> None:
    mine = leases()
    for now in range(0, 20, 5):
        mine.renewed(now * SECOND, now > 0, [("you", 1)])
        assert list(mine.dead(["you", "other"])) == []
    mine.renewed(20 * SECOND, True, [("you", 20 * SECOND), ("she", 25 * SECOND)])
    assert list(mine.dead(["you", "she", "other", "me"])) == ["you", "other"]


def test_who_was_cut_off_judges_nobody_for_a_life() -> None:
    mine = leases()
    for now in range(0, 30, 5):
        mine.renewed(now * SECOND, now > 0, [("you", 99 * SECOND)])
    assert mine.renewed(100 * SECOND, False, [("you", 99 * SECOND)]) is False
    assert list(mine.dead(["you"])) == []
    assert mine.renewed(115 * SECOND, True, [("you", 50 * SECOND)]) is True
    assert list(mine.dead(["you"])) == []
    mine.renewed(120 * SECOND, True, [("you", 50 * SECOND)])
    assert list(mine.dead(["you"])) == ["you"]


def test_who_is_new_judges_those_who_died_long_ago_after_a_moment() -> None:
    mine = leases()
    assert mine.renewed(100 * SECOND, False, [("old", 70 * SECOND), ("young", 95 * SECOND)]) is True
    assert list(mine.dead(["old", "unheard", "young"])) == []
    mine.renewed(110 * SECOND, True, [("old", 70 * SECOND), ("young", 95 * SECOND)])
    assert list(mine.dead(["old", "unheard", "young"])) == ["old", "unheard"]


def test_nobody_is_judged_before_the_first_lease() -> None:
    assert list(leases().dead(["you"])) == []


def test_the_first_of_those_who_live_leads() -> None:
    mine = leases()
    assert not mine.leads
    mine.renewed(0, False, [("me a", 20 * SECOND), ("a b", 15 * SECOND), ("z b", 15 * SECOND)])
    assert not mine.leads
    mine.renewed(15 * SECOND, True, [("me a", 35 * SECOND), ("a b", 15 * SECOND), ("z b", 30 * SECOND)])
    assert mine.leads
