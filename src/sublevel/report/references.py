"""The works that a study rests on, as BibTeX, and when each is due."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """One work: its key, how a text names it, and its entry."""

    key: str
    short: str
    kind: str
    fields: tuple[tuple[str, str], ...]

    @property
    def bibtex(self) -> str:
        """The entry, one field a line."""
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in self.fields)
        return f"@{self.kind}{{{self.key},\n{lines}\n}}"


def _work(key: str, short: str, kind: str, **fields: str) -> Work:
    arxiv = fields.pop("arxiv", "")
    found = tuple(fields.items()) + ((("eprint", arxiv), ("archivePrefix", "arXiv")) if arxiv else ())
    return Work(key, short, kind, found)


WORKS: dict[str, Work] = {
    w.key: w
    for w in (
        _work(
            "saleem2024insights", "Saleem et al. (2024)", "misc",
            author="Saleem, Tausifa Jan and Ahuja, Ramanjit and Prasad, Surendra and Lall, Brejesh",
            title="Insights into the Lottery Ticket Hypothesis and Iterative Magnitude Pruning", year="2024",
            arxiv="2403.15022",
        ),
        _work(
            "frankle2019lottery", "Frankle and Carbin (2019)", "inproceedings",
            author="Frankle, Jonathan and Carbin, Michael",
            title="The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
            booktitle="International Conference on Learning Representations", year="2019", arxiv="1803.03635",
        ),
        _work(
            "frankle2020linear", "Frankle et al. (2020)", "inproceedings",
            author="Frankle, Jonathan and Dziugaite, Gintare Karolina and Roy, Daniel M. and Carbin, Michael",
            title="Linear Mode Connectivity and the Lottery Ticket Hypothesis",
            booktitle="International Conference on Machine Learning", year="2020", arxiv="1912.05671",
        ),
        _work(
            "renda2020comparing", "Renda et al. (2020)", "inproceedings",
            author="Renda, Alex and Frankle, Jonathan and Carbin, Michael",
            title="Comparing Rewinding and Fine-tuning in Neural Network Pruning",
            booktitle="International Conference on Learning Representations", year="2020", arxiv="2003.02389",
        ),
        _work(
            "paul2023unmasking", "Paul et al. (2023)", "inproceedings",
            author="Paul, Mansheej and Chen, Feng and Larsen, Brett W. and Frankle, Jonathan and Ganguli, Surya and "
            "Dziugaite, Gintare Karolina",
            title="Unmasking the Lottery Ticket Hypothesis: What's Encoded in a Winning Ticket's Mask?",
            booktitle="International Conference on Learning Representations", year="2023", arxiv="2210.03044",
        ),
        _work(
            "ainsworth2023git", "Ainsworth et al. (2023)", "inproceedings",
            author="Ainsworth, Samuel K. and Hayase, Jonathan and Srinivasa, Siddhartha",
            title="Git Re-Basin: Merging Models modulo Permutation Symmetries",
            booktitle="International Conference on Learning Representations", year="2023", arxiv="2209.04836",
        ),
        _work(
            "ghorbani2019investigation", "Ghorbani et al. (2019)", "inproceedings",
            author="Ghorbani, Behrooz and Krishnan, Shankar and Xiao, Ying",
            title="An Investigation into Neural Net Optimization via Hessian Eigenvalue Density",
            booktitle="International Conference on Machine Learning", year="2019", arxiv="1901.10159",
        ),
        _work(
            "garipov2018loss", "Garipov et al. (2018)", "inproceedings",
            author="Garipov, Timur and Izmailov, Pavel and Podoprikhin, Dmitrii and Vetrov, Dmitry and "
            "Wilson, Andrew Gordon",
            title="Loss Surfaces, Mode Connectivity, and Fast Ensembling of {DNNs}",
            booktitle="Advances in Neural Information Processing Systems", year="2018", arxiv="1802.10026",
        ),
        _work(
            "li2018visualizing", "Li et al. (2018)", "inproceedings",
            author="Li, Hao and Xu, Zheng and Taylor, Gavin and Studer, Christoph and Goldstein, Tom",
            title="Visualizing the Loss Landscape of Neural Nets",
            booktitle="Advances in Neural Information Processing Systems", year="2018", arxiv="1712.09913",
        ),
        _work(
            "lau2025local", "Lau et al. (2025)", "inproceedings",
            author="Lau, Edmund and Furman, Zach and Wang, George and Murfet, Daniel and Wei, Susan",
            title="The Local Learning Coefficient: A Singularity-Aware Complexity Measure",
            booktitle="International Conference on Artificial Intelligence and Statistics", year="2025",
            arxiv="2308.12108",
        ),
        _work(
            "huang2020understanding", "Huang et al. (2020)", "inproceedings",
            author="Huang, W. Ronny and Emam, Zeyad and Goldblum, Micah and Fowl, Liam and Terry, Justin K. and "
            "Huang, Furong and Goldstein, Tom",
            title="Understanding Generalization through Visualizations",
            booktitle="NeurIPS Workshop ``I Can't Believe It's Not Better!''", year="2020", arxiv="1906.03291",
        ),
        _work(
            "kwon2021asam", "Kwon et al. (2021)", "inproceedings",
            author="Kwon, Jungmin and Kim, Jeongseop and Park, Hyunseo and Choi, In Kwon",
            title="{ASAM}: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural Networks",
            booktitle="International Conference on Machine Learning", year="2021", arxiv="2102.11600",
        ),
        _work(
            "wales1998archetypal", "Wales et al. (1998)", "article",
            author="Wales, David J. and Miller, Mark A. and Walsh, Tiffany R.", title="Archetypal Energy Landscapes",
            journal="Nature", volume="394", pages="758--760", year="1998",
        ),
        _work(
            "holm1979simple", "Holm (1979)", "article",
            author="Holm, Sture", title="A Simple Sequentially Rejective Multiple Test Procedure",
            journal="Scandinavian Journal of Statistics", volume="6", number="2", pages="65--70", year="1979",
        ),
        _work(
            "zhu2017prune", "Zhu and Gupta (2017)", "misc",
            author="Zhu, Michael and Gupta, Suyog",
            title="To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression", year="2017",
            arxiv="1710.01878",
        ),
        _work(
            "ramanujan2020hidden", "Ramanujan et al. (2020)", "inproceedings",
            author="Ramanujan, Vivek and Wortsman, Mitchell and Kembhavi, Aniruddha and Farhadi, Ali and "
            "Rastegari, Mohammad",
            title="What's Hidden in a Randomly Weighted Neural Network?",
            booktitle="IEEE/CVF Conference on Computer Vision and Pattern Recognition", year="2020", arxiv="1911.13299",
        ),
        _work(
            "savarese2020winning", "Savarese et al. (2020)", "inproceedings",
            author="Savarese, Pedro and Silva, Hugo and Maire, Michael",
            title="Winning the Lottery with Continuous Sparsification",
            booktitle="Advances in Neural Information Processing Systems", year="2020", arxiv="1912.04427",
        ),
    )
}  # fmt: skip


def bibtex(keys: list[str]) -> str:
    """The entries of some works, in the order of ``WORKS``, each once."""
    return "\n\n".join(work.bibtex for key, work in WORKS.items() if key in keys)
