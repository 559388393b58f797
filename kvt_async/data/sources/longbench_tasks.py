"""LongBench's 21 tasks as one table: adding a task is adding a row.

Prompts and answer lengths are facts of the published benchmark (Bai et al., 2024; config/dataset2prompt.json and
dataset2maxlen.json), its typos among them ("asconcisely"), since other wording gives other scores. Only the name of the
question's place is ours: {question} for {input}.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LongBenchTask:
    key: str  # exact, case-sensitive: the file in the archive is data/KEY.jsonl
    metric: str  # name in the analyzer's registry
    max_new_tokens: int  # published answer length
    about: str
    template: str
    chat_template: bool = True  # False: published without one, since it continues a list of examples or code
    first_line_only: bool = False  # scored on the first line of the answer
    in_e: bool = False  # also part of LongBench-E (data/KEY_e.jsonl), balanced by length

    @property
    def scored_by(self) -> str:
        """`datasets.metric`: the analyzer registers the first-line rule as a metric of its own."""
        return f"{self.metric}_first_line" if self.first_line_only else self.metric


_ROWS = (
    LongBenchTask(
        "narrativeqa",
        "qa_f1",
        128,
        "question on a novel or film script",
        "You are given a story, which can be either a novel or a movie script, and a question. Answer "
        "the question asconcisely as you can, using a single phrase if possible. Do not provide any "
        "explanation.\n\n"
        "Story: {context}\n\n"
        "Now, answer the question based on the story asconcisely as you can, using a single phrase if "
        "possible. Do not provide any explanation.\n\n"
        "Question: {question}\n\n"
        "Answer:",
    ),
    LongBenchTask(
        "qasper",
        "qa_f1",
        128,
        "question on a scientific paper",
        "You are given a scientific article and a question. Answer the question as concisely as you "
        "can, using a single phrase or sentence if possible. If the question cannot be answered based "
        'on the information in the article, write "unanswerable". If the question is a yes/no question, '
        'answer "yes", "no", or "unanswerable". Do not provide any explanation.\n\n'
        "Article: {context}\n\n"
        " Answer the question based on the above article as concisely as you can, using a single phrase "
        "or sentence if possible. If the question cannot be answered based on the information in the "
        'article, write "unanswerable". If the question is a yes/no question, answer "yes", "no", or '
        '"unanswerable". Do not provide any explanation.\n\n'
        "Question: {question}\n\n"
        "Answer:",
        in_e=True,
    ),
    LongBenchTask(
        "multifieldqa_en",
        "qa_f1",
        64,
        "question on a long document of many fields",
        "Read the following text and answer briefly.\n\n"
        "{context}\n\n"
        "Now, answer the following question based on the above text, only give me the answer and do not "
        "output any other words.\n\n"
        "Question: {question}\n"
        "Answer:",
        in_e=True,
    ),
    LongBenchTask(
        "multifieldqa_zh",
        "qa_f1_zh",
        64,
        "question on a long document, Chinese",
        "阅读以下文字并用中文简短回答：\n\n"
        "{context}\n\n"
        "现在请基于上面的文章回答下面的问题，只告诉我答案，不要输出任何其他字词。\n\n"
        "问题：{question}\n"
        "回答：",
    ),
    LongBenchTask(
        "hotpotqa",
        "qa_f1",
        32,
        "question over several Wikipedia passages",
        "Answer the question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\n"
        "The following are given passages.\n"
        "{context}\n\n"
        "Answer the question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\n"
        "Question: {question}\n"
        "Answer:",
        in_e=True,
    ),
    LongBenchTask(
        "2wikimqa",
        "qa_f1",
        32,
        "question over several Wikipedia passages, up to 5 hops",
        "Answer the question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\n"
        "The following are given passages.\n"
        "{context}\n\n"
        "Answer the question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\n"
        "Question: {question}\n"
        "Answer:",
        in_e=True,
    ),
    LongBenchTask(
        "musique",
        "qa_f1",
        32,
        "question over several Wikipedia passages, up to 4 hops",
        "Answer the question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\n"
        "The following are given passages.\n"
        "{context}\n\n"
        "Answer the question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\n"
        "Question: {question}\n"
        "Answer:",
    ),
    LongBenchTask(
        "dureader",
        "rouge_zh",
        128,
        "question on web passages, Chinese",
        "请基于给定的文章回答下述问题。\n\n"
        "文章：{context}\n\n"
        "请基于上述文章回答下面的问题。\n\n"
        "问题：{question}\n"
        "回答：",
    ),
    LongBenchTask(
        "gov_report",
        "rouge",
        512,
        "summary of a government report",
        "You are given a report by a government agency. Write a one-page summary of the report.\n\n"
        "Report:\n"
        "{context}\n\n"
        "Now, write a one-page summary of the report.\n\n"
        "Summary:",
        in_e=True,
    ),
    LongBenchTask(
        "qmsum",
        "rouge",
        512,
        "summary of a meeting for a query",
        "You are given a meeting transcript and a query containing a question or instruction. Answer "
        "the query in one or more sentences.\n\n"
        "Transcript:\n"
        "{context}\n\n"
        "Now, answer the query based on the above meeting transcript in one or more sentences.\n\n"
        "Query: {question}\n"
        "Answer:",
    ),
    LongBenchTask(
        "multi_news",
        "rouge",
        512,
        "summary of several news articles",
        "You are given several news passages. Write a one-page summary of all news. \n\n"
        "News:\n"
        "{context}\n\n"
        "Now, write a one-page summary of all the news.\n\n"
        "Summary:",
        in_e=True,
    ),
    LongBenchTask(
        "vcsum",
        "rouge_zh",
        512,
        "summary of a meeting, Chinese",
        "下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n{context}\n\n会议总结：",
    ),
    LongBenchTask(
        "trec",
        "classification",
        64,
        "question type, few-shot",
        "Please determine the type of the question below. Here are some examples of questions.\n\n"
        "{context}\n"
        "{question}",
        chat_template=False,
        first_line_only=True,
        in_e=True,
    ),
    LongBenchTask(
        "triviaqa",
        "qa_f1",
        32,
        "question on a passage, few-shot",
        "Answer the question based on the given passage. Only give me the answer and do not output any "
        "other words. The following are some examples.\n\n"
        "{context}\n\n"
        "{question}",
        chat_template=False,
        first_line_only=True,
        in_e=True,
    ),
    LongBenchTask(
        "samsum",
        "rouge",
        128,
        "dialogue summary, few-shot",
        "Summarize the dialogue into a few short sentences. The following are some examples.\n\n"
        "{context}\n\n"
        "{question}",
        chat_template=False,
        first_line_only=True,
        in_e=True,
    ),
    LongBenchTask(
        "lsht",
        "classification",
        64,
        "news category, few-shot, Chinese",
        "请判断给定新闻的类别，下面是一些例子。\n\n{context}\n{question}",
        chat_template=False,
        first_line_only=True,
    ),
    LongBenchTask(
        "passage_count",
        "count",
        32,
        "number of distinct paragraphs",
        "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. Please "
        "carefully read these paragraphs and determine how many unique paragraphs there are after "
        "removing duplicates. In other words, how many non-repeating paragraphs are there in total?\n\n"
        "{context}\n\n"
        "Please enter the final count of unique paragraphs after removing duplicates. The output format "
        "should only contain the number, such as 1, 2, 3, and so on.\n\n"
        "The final answer is: ",
        in_e=True,
    ),
    LongBenchTask(
        "passage_retrieval_en",
        "retrieval",
        32,
        "which paragraph an abstract is from",
        "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which "
        "paragraph the abstract is from.\n\n"
        "{context}\n\n"
        "The following is an abstract.\n\n"
        "{question}\n\n"
        "Please enter the number of the paragraph that the abstract is from. The answer format must be "
        'like "Paragraph 1", "Paragraph 2", etc.\n\n'
        "The answer is: ",
        in_e=True,
    ),
    LongBenchTask(
        "passage_retrieval_zh",
        "retrieval_zh",
        32,
        "which paragraph an abstract is from, Chinese",
        "以下是若干段落文字，以及其中一个段落的摘要。请确定给定的摘要出自哪一段。\n\n"
        "{context}\n\n"
        "下面是一个摘要\n\n"
        "{question}\n\n"
        '请输入摘要所属段落的编号。答案格式必须是"段落1"，"段落2"等格式\n\n'
        "答案是：",
    ),
    LongBenchTask(
        "lcc",
        "code_sim",
        64,
        "next line of code in a file",
        "Please complete the code given below. \n{context}Next line of code:\n",
        chat_template=False,
        in_e=True,
    ),
    LongBenchTask(
        "repobench-p",
        "code_sim",
        64,
        "next line of code in a repository",
        "Please complete the code given below. \n{context}{question}Next line of code:\n",
        chat_template=False,
        in_e=True,
    ),
)

TASKS: dict[str, LongBenchTask] = {task.key: task for task in _ROWS}
E_TASKS: dict[str, LongBenchTask] = {task.key: task for task in _ROWS if task.in_e}
