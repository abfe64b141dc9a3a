"""Findings of the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from paper_figs.findings.evidence import Evidence
from paper_figs.findings.registry import finding
from paper_figs.findings.words import listed
from theory.claims import Author, Verdict

SAID = {
    Verdict.EXACT: "exact",
    Verdict.BOUND: "bounds that hold",
    Verdict.APPROXIMATE: "approximate",
    Verdict.CONDITIONAL: "true under a condition only",
    Verdict.FAILS: "false as said",
    Verdict.UNDECIDED: "undecided",
}
OTHERS = {
    Author.CODE: "of the public code",
    Author.SUMMARY: "of machine-made summaries",
    Author.OURS: "of this project",
}


def counts_of(rows: Sequence[Mapping[str, object]]) -> str:
    """Say how many rows have which verdict."""
    tally = Counter(row["verdict"] for row in rows)
    return listed([f"{tally[verdict.value]} {SAID[verdict]}" for verdict in Verdict if tally[verdict.value]])


@finding("ledger", "The paper's claims, counted")
def ledger(e: Evidence) -> str:
    """Count the verdicts on the claims of the paper, and the rows of others."""
    paper = [row for row in e.rows() if row["said_by"] == Author.PAPER.value]
    judged = [row for row in paper if not row["by_construction"]]
    others = Counter(row["said_by"] for row in e.rows() if row["said_by"] != Author.PAPER.value)
    also = [f"{count} {OTHERS[Author(name)]}" for name, count in others.items()]
    return f"""
        Of {len(judged)} claims of the paper, each judged in a stated regime, the ledger finds {counts_of(judged)}.
        Apart from these there are {listed([f"{len(paper) - len(judged)} that hold by construction", *also])}.
    """


@finding("objective", "Allocation and the objective (A10)")
def objective(e: Evidence) -> str:
    """Give the growth of a prompt's weight by estimator and aggregation."""
    grown = e.numbers("A10", Verdict.EXACT)
    return f"""
        A group of n rollouts gives its prompt a weight in the objective. From n = 8 to 24 the weight of a prompt with
        success rate .05 grows {grown["prompt_mean_grpo"]:.2f} times with GRPO's advantages under a mean over prompts,
        and {grown["token_mean_grpo"]:.1f} times under a mean over tokens at equal lengths, as in the public code.
        With RLOO it grows {grown["prompt_mean_rloo"]:.2f} and {grown["token_mean_rloo"]:.1f} times. Under a mean over
        prompts GRPO's growth is between {grown["least_growth"]:.2f} and {grown["most_growth"]:.2f}, for p from .01 to
        .99. So an allocation is not a matter of noise alone, except for an unbiased estimator under a mean over
        prompts. (One-token answers, on-policy.)
    """


POLICIES = {"diffuse": "diffuse answers", "peaked": "peaked ones", "binary": "two"}


def _by_policy(numbers: Mapping[str, float], name: str) -> str:
    return listed([f"{numbers[name.format(policy)]:.2f} with {words}" for policy, words in POLICIES.items()])


@finding("variance", "Noise of the paper's allocation (A7, A11, A12)")
def variance(e: Evidence) -> str:
    """Give the variance of the paper's rule over uniform's by policy, in both aggregations."""
    rule, tokens = (e.numbers(row, Verdict.CONDITIONAL) for row in ("A11", "A12"))
    e.numbers("A7", Verdict.CONDITIONAL)
    return f"""
        The rule takes p (1 - p) for the variance of a prompt's gradient. Over that of uniform allocation, the
        variance of RLOO's gradient (its trace) is {_by_policy(rule, "{}_rloo_P")}; with GRPO's advantages
        {_by_policy(rule, "{}_grpo_P")}, and, with every prompt's part divided by its weight,
        {_by_policy(rule, "same_objective_{}_grpo")}. (512 prompts, p known, from Beta(.7, .7) clipped to .02 to .98;
        one-token answers, 8 to 24 rollouts at a mean of 16, a mean over prompts.) Chains of one length, with one
        deciding token and 64 coins, are like diffuse answers: {rule["chain_64_rloo"]:.2f} (RLOO) and
        {rule["chain_64_grpo"]:.2f} (GRPO). The population of p decides as well: over Beta(a, a) with a = .1, .3, .7,
        2, and Beta(.3, 1), clipped 1e-4 or .02 from 0 and 1, RLOO's ratio goes from
        {rule["least_binary_rloo_trace"]:.2f} to {rule["most_binary_rloo_trace"]:.2f} with two answers and from
        {rule["least_diffuse_rloo_trace"]:.2f} to {rule["most_diffuse_rloo_trace"]:.2f} with diffuse ones. It is less
        where many prompts are near 0 or 1, and more with few answers and middling p. Other losses and criteria
        differ. Under a mean over tokens, at equal lengths, counts that rise with the deviation raise the variance if
        it is sigma^2/n, but not always that of RLOO: two answers, half of the prompts at p = .5 with 24 rollouts and
        half at .005 with 8, have {tokens["pair_steep"]:.2f} of uniform's. And the cosine to the true gradient may
        rise, for GRPO with diffuse
        answers from {rule["cosine_uniform_diffuse_grpo"]:.2f} to {rule["cosine_token_mean_diffuse_grpo"]:.2f}.
    """


@finding("half", '"Up to 50 %" less variance (A5)')
def half(e: Evidence) -> str:
    """Say where half of the variance goes, and where not."""
    left = e.numbers("A5", Verdict.CONDITIONAL)
    at = ("1e-06", "1e-04", "1e-03", "1e-02")
    grpo, rloo = (listed([f"{left[f'{name}_at_{p}']:.2f}" for p in at]) for name in ("grpo", "rloo"))
    return f"""
        A summary of the paper says it, not the paper. It can be reached: in a batch of which one half has two answers
        at p = .5 and the other half is hopeless, the paper's rule leaves {grpo} of uniform's variance with GRPO and
        {rloo} with RLOO, where hopeless means p = 1e-6, 1e-4, .001 and .01. Half is gone up to p =
        {left["grpo_halved_up_to"]:.1e} and {left["rloo_halved_up_to"]:.1e}. Within 8 to 24 rollouts at a mean of 16
        no rule leaves less than {left["floor_grpo"]:.2f} (GRPO) and {left["floor_rloo"]:.2f} (RLOO) in any batch; if
        variance were sigma^2/n, {left["floor_reinforce"]:.2f}. (Binary reward, p known, a mean over prompts.)
    """


@finding("proxy", "Shares in proportion to a variance (A4)")
def proxy(e: Evidence) -> str:
    """Give the cost of P for its root."""
    cost = e.numbers("A4", Verdict.CONDITIONAL)
    return f"""
        The theorem asks for shares in proportion to a deviation, the algorithm takes an estimate of a variance.
        Without bounds such shares have exactly the variance of uniform allocation. Within 8 to 24 at a mean of 16
        they cost at most {cost["largest_cost"]:.3f} of uniform's variance against the root, for success rates from
        Beta(a, a) with a from .1 to 5, and up to {cost["two_valued_cost"]:.3f} for the worst of two values; apart from
        rounding they are never above uniform's variance. (sigma^2 = p (1 - p)
        and sigma^2/n assumed, p known.)
    """


@finding("optimal", "A better estimator, and allocation at a fixed objective (A13, A14, ours)")
def optimal(e: Evidence) -> str:
    """Give the variance of the best centred estimator, and of the best counts at one objective."""
    best, chains = e.numbers("A14", Verdict.EXACT), e.numbers("A13", Verdict.EXACT)
    rule = e.numbers("A11", Verdict.CONDITIONAL)
    texts = [
        f"{listed([f'{best[name.format(policy)]:.2f}' for policy in ('binary', 'peaked', 'diffuse')])} {words}"
        for name, words in (
            ("{}_best_uniform", "for the best centred advantages"),
            ("{}_rloo_best", "for the best counts"),
            ("{}_best_best", "for both"),
            ("{}_rloo_paper", "for the paper's counts"),
        )
    ]
    return f"""
        Divide each prompt's part by its weight, and the objective no longer depends on the counts. Then the variance
        over that of RLOO with 16 rollouts each is, with two, peaked and diffuse answers, {"; ".join(texts)}.
        (One-token answers, p from Beta(.7, .7) clipped to .02 to .98, true p known, on-policy; with an estimate of p
        the first is biased.) The best advantages gain where the scores of right and of wrong answers differ on
        average. Where they hardly do, as in a chain of one deciding token and 50 coins, RLOO has at most
        {chains["chain_loss"]:.1%} more variance. The paper's counts depend on the population of p: over those of
        A11, RLOO's ratio goes from {rule["least_binary_rloo_trace"]:.2f} to
        {rule["most_binary_rloo_trace"]:.2f} with two answers.
    """


@finding("convergence", "Less variance, faster learning? (A15)")
def convergence(e: Evidence) -> str:
    """Say how often the noisier of two unbiased estimators gains more, and what noise does over many steps."""
    row = e.numbers("A15", Verdict.CONDITIONAL)
    return f"""
        A lower variance raises a lower bound on the progress of a step, for estimators of one mean. With GRPO an
        allocation changes the mean: for two prompts with two answers, at p = .1 and .5, the counts of least variance
        have {row["grpo_less_variance"]:.2f} of uniform's variance and {row["grpo_less_progress"]:.3f} of its
        first-order progress. Progress itself does not follow the variance, even at one mean. Of two unbiased
        estimators with one n (RLOO, REINFORCE, a baseline of the true p, the best centred one; n = 4 or 8) the
        noisier gains more in {row["against_0.1"]:.0%} of the pairs at p = .1, {row["against_0.5"]:.0%} at .5 and
        {row["against_0.9"]:.0%} at .9. (One step on one prompt, 2 to 6 answers, rates .3 and 1.) Over many steps,
        with two answers, rate 1 and a start at p = .02, RLOO with 4 rollouts is at {row["noisy_20"]:.2f} after 20
        visits, where 16 rollouts have {row["quiet_20"]:.2f}, and at {row["noisy_50"]:.2f} after 50, where they have
        {row["quiet_50"]:.2f}.
    """


@finding("feedback", "What counts since the start know (A3, A16)")
def feedback(e: Evidence) -> str:
    """Give the lag of lifetime counts."""
    row = e.numbers("A16", Verdict.CONDITIONAL)
    up, down = (listed([f"{row[f'lag_{p}_{visits}_1.0']:.0f}" for visits in (4, 16, 32)]) for p in (0.5, 0.9))
    return f"""
        The paper's estimate of p (1 - p) is unbiased for one p, but a history pools the p of all its visits. If p
        jumps from .1 to .5 after 4, 16 or 32 visits, the estimate is on average within 20 % of p (1 - p) again after
        {up} more; if p jumps from .5 to .9, after {down}. With counts that halve at each visit it takes
        {row["lag_0.5_32_0.5"]:.0f} and {row["lag_0.9_32_0.5"]:.0f}. (16 rollouts a visit, closed form.)
    """


@finding("bound", "The bound on the update (G4)")
def bound(e: Evidence) -> str:
    """Say where the bound fails and where it holds."""
    row = e.numbers("G4", Verdict.CONDITIONAL)
    at = ("0.9", "0.95", "0.99")
    quarters, most = ([row[f"{name}_{p}"] for p in at] for name in ("three_quarters", "dependence"))
    return f"""
        The paper bounds the mean squared update by the entropy, as if a token's advantage did not depend on the
        token. With one token and two answers the update is {row["single_ratio"]:.1f} times the bound at p = .1 or .9,
        and in a chain of 1,024 decisions with p = .9 still {row["easy_long_chain"]:.1f} times. What decides is
        (1 - f) |p/q - 1|, with a share f of tokens that decide nothing: where it is at most .1, in 128 tokens or
        more, the dependence is at most {row["dependence_where_small"]:.0%} and the bound holds. With one decision in
        128 tokens the dependence is {listed([f"{x:.0%}" for x in most])} at p = .9, .95 and .99; with one in four the
        update is up to {listed([f"{x:.2f}" for x in quarters])} times the bound. (A = (R - p)/sqrt(p q).)
    """


@finding("compensation", "Compensation (M5)")
def compensation(e: Evidence) -> str:
    """Compare what compensation adds with what is lost."""
    row = e.numbers("M5", Verdict.BOUND)
    return f"""
        It should mitigate the short updates of confident correct tokens, and it lengthens them: for two answers
        {row["factor_90"]:.2f} times at a probability of .9, {row["factor_95"]:.2f} at .95 and {row["factor"]:.2f} at
        .99, and in made batches over 64 tokens, whose entropies reach higher, {row["amplified_least"]:.2f} to
        {row["amplified_most"]:.2f} times above .9. With two answers a token of probability .99 has a score
        {row["required"]:.0f} times shorter than one of .5: {row["restored_99"]:.1%} of the lost length comes back.
        (alpha = .4, a mode of the public code.)
    """


@finding("stabilisation", "Stabilisation (M6, M8, M9)")
def stabilisation(e: Evidence) -> str:
    """Give what stabilisation leaves of the largest entropy change and of the largest update."""
    row, back = e.numbers("M6", Verdict.CONDITIONAL), e.numbers("M9", Verdict.CONDITIONAL)
    e.numbers("M8", Verdict.BOUND)
    alone = f"{row['least_entropy_change']:.2f} to {row['largest_entropy_change']:.2f}"
    kept = f"{row['least_update']:.0%} to {row['largest_update']:.0%}"
    both = f"{row['both_entropy_change_least']:.2f} to {row['both_entropy_change_most']:.2f}"
    return f"""
        Stabilisation alone: the largest entropy change of a batch falls to {alone} times, the largest update keeps
        {kept} of its length. With compensation, as the method has it, the largest entropy change is {both} times and
        the largest update {row["both_update_least"]:.2f} to {row["both_update_most"]:.2f} times what they were. A
        large entropy change needs a long update, but of the 1 % longest updates only {back["top_shared_least"]:.0%}
        to {back["top_shared_most"]:.0%} are among the 1 % largest entropy changes, over six seeds and four scales of
        the logits. (Made on-policy batches of 128 to 8,192 tokens, V = 64; alpha = .4 and tau = .9, a mode of the
        public code; one step.)
    """


@finding("tables", "The published tables (T1 to T7)")
def tables(e: Evidence) -> str:
    """Say what the published numbers bear out."""
    best, synergy = e.numbers("T1", Verdict.CONDITIONAL), e.numbers("T3", Verdict.EXACT)
    gaps = e.numbers("T7", Verdict.CONDITIONAL)
    rows = [row for row in e.rows() if row["id"].startswith("T") and not row["by_construction"]]
    relative = [f"{gaps[f'relative_pass@1_{size}']:.1%}" for size in ("1.5B", "7B")]
    return f"""
        Of {len(rows)} claims about them the ledger finds {counts_of(rows)}, as far as means without intervals can
        tell; T2 is arithmetic. DynaMO leads all averages, by {best["least_average_lead"]:.1f} to
        {best["most_average_lead"]:.1f} points over the best baseline, and {best["ahead_pass@1"]:.0f} of 12 cells of
        pass@1 and {best["ahead_pass@32"]:.0f} of 12 of
        pass@32. Removing both modulations costs {synergy["joint"]:.2f} points on average, where the two alone cost
        {synergy["separate"]:.2f}. From 1.5B to 7B the gap over GRPO goes from {gaps["gap_pass@1_1.5B"]:.2f} to
        {gaps["gap_pass@1_7B"]:.2f} points of pass@1, which is {relative[0]} and {relative[1]} of GRPO's average, and
        from {gaps["gap_pass@32_1.5B"]:.2f} to {gaps["gap_pass@32_7B"]:.2f} points of pass@32.
    """
